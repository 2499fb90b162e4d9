"""What another version of transformers makes of folders of ours: `python older_peer.py OUT FOLDER...`.

Writes into OUT, for each folder NAME, NAME.npz with log-probabilities and greedy tokens, and NAME.json with the token
ids of each text below and a rendered chat. The script imports nothing of the project: it runs with other libraries.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

IDS = [[*range(10, 34)], [*range(40, 64)]]
WORDS = ("apples", "12,345.67", "naïve café", "東京は", "🙂 ok", r"\boxed{42}", "don't", "\tTAB", "ΑΒΓ", "<b>x</b>")
TEXTS = ["", " ", "\n\n", *(f"{a} {b}" for a in WORDS for b in WORDS[:5]), "<|im_start|>user\nhi<|im_end|>"]
CHAT = [{"role": "user", "content": "Tom has 3 apples and buys 4 more."}, {"role": "assistant", "content": "7"}]


def look(folder: str, out: Path) -> None:
    import torch
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor(IDS)
    with torch.no_grad():
        log_probs = model.double()(ids).logits.log_softmax(-1).numpy()
        greedy = model.generate(ids[:1], max_new_tokens=12, do_sample=False).numpy()
    name = Path(folder).name
    np.savez(out / f"{name}.npz", log_probs=log_probs, greedy=greedy)
    texts = {
        "version": transformers.__version__,
        "dtype": str(model.config.dtype),
        "eos": model.generation_config.eos_token_id,
        "ids": [tokenizer.encode(text) for text in TEXTS],
        "chat": tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True),
        "special": [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token],
    }
    (out / f"{name}.json").write_text(json.dumps(texts))


if __name__ == "__main__":
    for path in sys.argv[2:]:
        look(path, Path(sys.argv[1]))

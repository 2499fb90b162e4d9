"""A random model, vectors and a task, small enough that a test takes seconds."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from interp.bare_model import takes_model
from interp.model import Model
from interp.tasks.task import SPLITS, Problem, Task

SPECIAL = ("<|pad|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")
VOCABULARY = 256 + len(SPECIAL)
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BLOCKS, WIDTH = 4, 32


def tokenizer() -> Any:
    """One token per byte, four special ones, a chat template; ends a turn with <|im_end|> (id 2)."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(SPECIAL)}
    for letter in sorted(ByteLevel.alphabet()):
        vocabulary[letter] = len(vocabulary)
    inner = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = ByteLevelDecoder()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        additional_special_tokens=[SPECIAL[3]],
    )
    made.chat_template = CHAT
    return made


@lru_cache
def tiny_model() -> Model:
    """A random Llama: 4 blocks, width 32, 4 query and 2 key-value heads, a token for each byte. Do not change it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from interp.load import load_model

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=2,
        bos_token_id=1,
        pad_token_id=0,
    )
    made: Any = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            # Broad enough that every block matters to the prediction; norms near 1.
            parameter.copy_(1 + 0.1 * draw if draw.ndim == 1 else draw * 1.2 / draw.shape[-1] ** 0.5)
    return load_model(made.eval(), tokenizer=tokenizer())


@takes_model
def tiny_vectors(model: Model, folder: Path) -> Any:
    """Random vectors in every block, as long as half of a stream of ones, trained together by name.

    Args:
        model: what they fit.
        folder: where their file is written.
    """
    import numpy as np

    from interp.registry import load

    rows = np.random.default_rng(0).standard_normal((model.n_layers, model.d_model))
    file = folder / "tiny.npy"
    np.save(file, (0.5 * rows).astype(np.float32))
    return load("vectors", "load")(file, model=model, trained="together")


def tiny_task(n: int = 8) -> Task:
    """Sums, n in each split, graded by the last box; completions of at most 6 tokens."""
    problems = [
        Problem(f"{split}-{index}", f"{index} + {place}?", str(index + place), split=split)
        for place, split in enumerate(SPLITS)
        for index in range(n)
    ]
    return Task("tiny", lambda: problems, max_new_tokens=6)

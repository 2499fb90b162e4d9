"""What repeng makes of a control vector, and one of its own: `python repeng_peer.py MODEL IN.gguf OUT.gguf OUT.npz`.

Writes log-probabilities of the ids below without a vector, under the one it was given, and under twice its own.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

IDS = list(range(10, 30))


def main(folder: str, given: str, written: str, found: str) -> None:
    np.__dict__["float_"] = np.float64  # NumPy 2 dropped the name, which repeng has in one annotation
    from repeng import ControlModel, ControlVector, DatasetEntry  # pyright: ignore[reportMissingImports]

    plain: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = [DatasetEntry(f"{x} + {x} = {2 * x}", f"{x} + {x} = {x}") for x in range(6)]
    own = ControlVector.train(plain, tokenizer, pairs)
    own.export_gguf(written)
    theirs = ControlVector.import_gguf(given)

    def log_probs(vector: Any = None, strength: float = 1.0) -> Any:
        wrapped = ControlModel(plain, [] if vector is None else list(vector.directions))
        if vector is not None:
            wrapped.set_control(vector, strength)
        with torch.no_grad():
            logits = wrapped(torch.tensor([IDS])).logits
        wrapped.unwrap()
        return logits.log_softmax(-1).numpy()

    rows = {f"own.{layer}": row for layer, row in own.directions.items()}
    np.savez(found, plain=log_probs(), theirs=log_probs(theirs), own=log_probs(own, 2.0), **rows)


if __name__ == "__main__":
    main(*sys.argv[1:])

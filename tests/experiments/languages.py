"""A tiny model whose vocabulary has several scripts and process words, each with a direction of its own."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from interp.load import load_model
from interp.model import Model
from tests.interp import tiny

PROCESS = ("first", "then", "next", "step", "therefore", "so", "solve", "find", "total", "answer", "thus", "finally")
LATIN, HAN, CYRILLIC = 1400, 600, 40


def words() -> list[str]:
    letters = "abcdefghijklmnoprstuvz"
    latin = [f"{letters[i // 484]}{letters[i // 22 % 22]}{letters[i % 22]}q" for i in range(LATIN)]
    han = [chr(0x4E00 + i) for i in range(HAN)]
    cyrillic = [chr(0x430 + i // 8) + chr(0x430 + i % 8) for i in range(CYRILLIC)]
    mixed = [*tiny.SPECIAL, "?", ".", "7", *PROCESS]
    for start in range(0, LATIN, 70):  # scripts are spread over the ids, as frequencies are
        mixed += latin[start : start + 70] + han[start * 3 // 7 : (start + 70) * 3 // 7]
    numbers = {str(number) for index in range(64) for number in (index, index * index)} - {"7"}
    return [*mixed, *cyrillic, "+", *sorted(numbers)]


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(words())}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="."))
    inner.pre_tokenizer = Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=tiny.SPECIAL[0],
        bos_token=tiny.SPECIAL[1],
        eos_token=tiny.SPECIAL[2],
        additional_special_tokens=[tiny.SPECIAL[3]],
    )
    made.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    return made


def model() -> tuple[Model, torch.Tensor, torch.Tensor]:
    """The model, the direction that Han tokens share, and the one that process words share.

    Han tokens share little: with a large common part, random directions too would part them from Latin ones.
    """
    settings: dict[str, Any] = {"vocab_size": len(words())}
    hf: Any = tiny.model("llama", config=settings)
    draw = torch.Generator().manual_seed(7)
    han, process = torch.randn(2, 48, generator=draw)
    of = words()
    with torch.no_grad():
        weight = hf.lm_head.weight
        weight[[i for i, word in enumerate(of) if "\u4e00" <= word[0] <= "\u9fff"]] += 0.15 * han
        weight[[of.index(word) for word in PROCESS]] += 0.5 * process
    made = load_model(hf, tokenizer=tokenizer())
    hooked: Any = made.hooked
    gain = hooked.ln_final.w
    return made, han * gain, process * gain

"""Chat templates are applied once; spans name exactly the tokens of each part."""

from __future__ import annotations

import pickle
import re
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from interp.chat import render
from interp.errors import UserError
from interp.prompts import Prompt, shared_prefix

BOS, START, END = "<s>", "<|im_start|>", "<|im_end|>"

SMOL = (  # adds a system message of its own, as SmolLM2 and Qwen2.5 do
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful"
    "<|im_end|>\n{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (  # writes the BOS and the date, strips contents
    "{{ bos_token }}<|im_start|>system\nToday Date: {{ date_string or strftime_now('%d %b %Y') }}\n"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}{% endif %}<|im_end|>"
    "{% for m in messages if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (  # refuses system messages
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
TEMPLATES = {"smol": SMOL, "llama": LLAMA, "gemma": GEMMA, "none": None}
SYSTEM, PROBLEM = "Be brief: é €.", "What is 3 + 3? 日本"
EXAMPLE = (("1 + 1?", "It is 2."), ("2 + 2?", "4, of course."))


def tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """One token a byte, plus special tokens; a BOS is added by the tokenizer, as Llama's does."""
    special = [BOS, START, END]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({token: i for i, token in enumerate([*special, *alphabet])}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=BOS, eos_token=END, extra_special_tokens=[START])
    made.chat_template = template
    return made


def parts(template: str | None, prompt: Prompt) -> dict[str, str]:
    made = tokenizer(template)
    return {name: str(made.decode(list(prompt.ids[slice(*span)]))) for name, span in prompt.spans.items()}


@pytest.mark.parametrize("name", TEMPLATES)
def test_spans_are_the_parts(name: str) -> None:
    prompt = render(tokenizer(TEMPLATES[name]), PROBLEM, system=SYSTEM, example=EXAMPLE)
    found = parts(TEMPLATES[name], prompt)
    assert found["system"] == SYSTEM
    assert found["problem"] == PROBLEM
    assert found["example"].startswith(EXAMPLE[0][0]) and found["example"].endswith(EXAMPLE[1][1])
    before, after = prompt.text.split(PROBLEM)
    assert before.endswith(found["header"]) and after.endswith(found["assistant"])
    assert list(found) == ["system", "example", "header", "problem", "assistant"]


@pytest.mark.parametrize("name", ["smol", "llama", "gemma"])
def test_ids_are_those_of_the_template(name: str) -> None:
    made = tokenizer(TEMPLATES[name])
    turns = [{"role": "user", "content": PROBLEM}]
    if name != "gemma":
        turns.insert(0, {"role": "system", "content": SYSTEM})
    prompt = render(made, PROBLEM, system=None if name == "gemma" else SYSTEM)
    encoded: Any = made.apply_chat_template(turns, add_generation_prompt=True, date_string="26 Jul 2024")
    assert list(prompt.ids) == encoded["input_ids"]
    assert prompt == render(made, turns)


@pytest.mark.parametrize("name", TEMPLATES)
def test_one_bos_at_most(name: str) -> None:
    prompt = render(tokenizer(TEMPLATES[name]), PROBLEM, system=SYSTEM)
    assert prompt.ids.count(0) == (0 if name == "smol" else 1)
    assert name == "smol" or prompt.ids[0] == 0


def test_a_template_never_adds_a_system_message_of_its_own() -> None:
    assert "helpful" not in render(tokenizer(SMOL), PROBLEM).text
    plain = re.sub("{% if loop.first.*?{% endif %}", "", SMOL, flags=re.DOTALL)
    assert render(tokenizer(plain), PROBLEM).text.startswith("<|im_start|>user")
    assert render(tokenizer(GEMMA), PROBLEM).text.count(START) == 2


def test_the_date_is_not_that_of_today() -> None:
    assert "26 Jul 2024" in render(tokenizer(LLAMA), PROBLEM).text


def test_a_message_that_looks_like_the_template_keeps_its_place() -> None:
    for system in ("system", "a", "", "user\n"):
        found = parts(SMOL, render(tokenizer(SMOL), "user", system=system, example=[("system", "user")]))
        assert found.get("system", "") == system
        assert (found["problem"], found["header"]) == ("user", f"{END}\n{START}user\n")


def test_a_final_assistant_turn_is_a_prefill() -> None:
    turns = [{"role": "user", "content": PROBLEM}, {"role": "assistant", "content": "To"}]
    for template in TEMPLATES.values():
        opened, prefilled = render(tokenizer(template), PROBLEM), render(tokenizer(template), turns)
        assert prefilled.text == opened.text + "To"
        assert parts(template, prefilled)["assistant"].endswith("To")
        assert parts(template, prefilled)["problem"] == PROBLEM


def test_without_a_template_a_single_message_stands_as_it_is() -> None:
    assert render(tokenizer(None), PROBLEM).text == PROBLEM
    assert render(tokenizer(None), "3?", system="S", example=[("1?", "1")]).text == (
        "S\n\nQuestion: 1?\nAnswer: 1\n\nQuestion: 3?\nAnswer:"
    )


def test_a_template_that_rewrites_contents_is_refused() -> None:
    upper = SMOL.replace("m['content']", "m['content'] | upper")
    with pytest.raises(UserError, match="rewrites the system line"):
        render(tokenizer(upper), PROBLEM, system=SYSTEM)


@pytest.mark.parametrize(
    ("turns", "system", "message"),
    [
        ([{"role": "assistant", "content": "x"}], None, "alternate"),
        ([{"role": "tool", "content": "x"}], None, "alternate"),
        ([], None, "alternate"),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": "y"}], None, "alternate"),
        ([{"role": "system", "content": "x"}, {"role": "user", "content": "y"}], "z", "two system messages"),
    ],
)
def test_turns_out_of_order(turns: list[dict[str, str]], system: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        render(tokenizer(SMOL), turns, system=system)


def test_prompts_are_values() -> None:
    one, two = Prompt((1, 2, 3), {"system": (0, 2)}, "a"), Prompt((1, 2, 3), {"system": (0, 2)}, "b")
    assert one == two == pickle.loads(pickle.dumps(one)) and hash(one) == hash(two)
    assert one != Prompt((1, 2, 3)) and one.parts == ("system", "system", "")
    with pytest.raises(TypeError):
        one.spans["system"] = (0, 1)  # pyright: ignore[reportIndexIssue]


@pytest.mark.parametrize(
    "spans", [{"system": (0, 4)}, {"system": (2, 1)}, {"system": (0, 2), "problem": (1, 3)}, {"x": (0, 1)}]
)
def test_impossible_spans(spans: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(UserError):
        Prompt((1, 2, 3), spans)


def test_shared_prefix_counts_tokens() -> None:
    assert shared_prefix([Prompt((1, 2, 3)), Prompt((1, 2, 4, 5)), Prompt((1, 2))]) == 2
    assert shared_prefix([Prompt((1, 2))]) == 2 and shared_prefix([]) == 0

"""Settings of every experiment: what their help documents is accepted, and what makes no sense is refused at once."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from experiments.path_patching import PathPatching
from experiments.side_effects import SideEffects
from experiments.token_substitution import TokenSubstitution
from interp import registry
from interp.cli.options import given_settings, setting_options
from interp.errors import UserError
from interp.experiment import SCALES, Experiment
from sae.training import TrainSettings as SaeSettings
from tests.interp.toy import Toy
from vectors.train.settings import TrainSettings

NAMES = registry.names("experiments")
HOSTILE = (
    "", " ", "-1", "-0.5", "0", "nan", "inf", "-inf", "1e309", "9" * 30, "x", "1,1", "1,x", "nan,1", ",", "none", "None"
)  # fmt: skip


def experiment(name: str) -> type[Experiment]:
    return registry.load("experiments", name)


def shown(help_text: str) -> str:
    return re.findall(r"\[default: (.*)\]", help_text)[-1]


@pytest.mark.parametrize("name", NAMES)
def test_the_default_that_each_flag_shows_is_accepted(name: str) -> None:
    cls = experiment(name)
    fields = cls.model_fields
    texts = {str(option.name): shown(option.help or "") for option in setting_options(fields)}
    given = {
        one: text == "True" if fields[one].annotation is bool else "" if text == "empty" else text
        for one, text in texts.items()
    }
    assert cls(**given_settings(fields, given)) == cls()


@pytest.mark.parametrize("name", NAMES)
def test_the_words_that_help_gives_a_meaning_are_accepted(name: str) -> None:
    fields = experiment(name).model_fields
    for option in setting_options(fields):
        field, words = str(option.name), re.findall(r"\b(none|None|empty|0) = ", option.help or "")
        words += ["none"] if "if none" in (option.help or "") else []
        words += [] if option.metavar is None or "|" not in option.metavar else option.metavar.split("|")
        for word in words:
            values = given_settings(fields, {field: "" if word == "empty" else word})
            made = getattr(experiment(name)(**values), field)
            if word in ("none", "None"):
                assert made in (None, ()), (field, made)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_each_scale_is_within_its_own_bounds(name: str, scale: str) -> None:
    made = experiment(name).at(scale)
    assert made.settings() == experiment(name).model_validate(made.settings()).settings()


@pytest.mark.parametrize("name", NAMES)
def test_hostile_values_are_one_line_and_nothing_infinite_or_repeated_gets_in(name: str) -> None:
    cls = experiment(name)
    for field in (one for one, about in cls.model_fields.items() if about.annotation is not bool):
        for text in HOSTILE:
            try:
                value = getattr(cls(**given_settings(cls.model_fields, {field: text})), field)
            except UserError as error:
                assert ("\n" not in str(error) and field in str(error)) or "no such" in str(error)
                continue
            numbers = [one for one in (value if isinstance(value, tuple) else [value]) if isinstance(one, int | float)]
            assert all(abs(one) < float("inf") for one in numbers), (field, text)
            assert len(set(numbers)) == len(numbers), (field, text)
            if isinstance(value, int):
                assert value >= 0, (field, text)


def test_a_bare_experiment_bounds_its_problems_and_its_seed() -> None:
    for values in ({"n": 0}, {"n": -3}, {"n": 10**30}, {"seed": -1}, {"seed": 2**64}, {"pause": float("nan")}):
        with pytest.raises(UserError, match="setting"):
            Toy.model_validate(values)


@pytest.mark.parametrize(
    ("cls", "values", "says"),
    [
        (PathPatching, {"temperatures": (-1.0,)}, "greater than or equal to 0"),
        (PathPatching, {"patches": ("skip-atn",)}, "did you mean skip-attn"),
        (PathPatching, {"patches": ("./none.py:X",)}, "no such file"),
        (PathPatching, {"sweep": ("skip-hed",)}, "did you mean skip-head"),
        (PathPatching, {"controls": ("random",)}, "no such control"),
        (PathPatching, {"layer": -1}, "greater than or equal to 0"),
        (SideEffects, {"controls": ("other-block",)}, "no such control"),
        (SideEffects, {"doses": ()}, "at least one value"),
        (SideEffects, {"doses": (0.5,)}, "must hold 1"),
        (TokenSubstitution, {"draws": 0}, "greater than or equal to 1"),
        (TokenSubstitution, {"n": object()}, "an object of type object"),
        (TrainSettings, {"layers": (-1,)}, "greater than or equal to 0"),
        (TrainSettings, {"rate": float("inf")}, "finite"),
        (TrainSettings, {"stepz": 1}, "did you mean steps"),
        (SaeSettings, {"rate": -1.0}, "greater than 0"),
        (SaeSettings, {"k": "x"}, "valid integer"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_without_a_model(cls: Any, values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        cls(**values)
    assert says in str(caught.value) and " object at 0x" not in str(caught.value)


def test_more_active_features_than_there_are() -> None:
    with pytest.raises(UserError, match="16 features has no 17"):
        SaeSettings.at("quick", features=16, k=17)


def test_spaces_count_in_the_text_of_a_token() -> None:
    fields = TokenSubstitution.model_fields
    assert given_settings(fields, {"named": " the,The", "controls": "negated, permuted"}) == {
        "named": [" the", "The"],
        "controls": ["negated", "permuted"],
    }
    assert get_args(fields["named"].annotation)

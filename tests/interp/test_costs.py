"""What runs need: counts that follow from a model's shape and a machine."""

from __future__ import annotations

import dataclasses

import pytest

from figures.paper import manifest
from interp import registry
from interp.cli.plan import subject
from interp.costs import MACHINES, Subject, Work, need
from interp.profiles import PROFILES
from interp.tasks import Problem
from interp.tasks.benchmarks import in_turn


@pytest.mark.parametrize(
    ("profile", "billions"),
    [("smollm2-135m-instruct", 0.1345), ("qwen2.5-math-7b", 7.615), ("llama-3.1-8b-instruct", 8.030)],
)
def test_shapes_give_the_published_numbers_of_parameters(profile: str, billions: float) -> None:
    assert PROFILES[profile].shape.parameters == pytest.approx(billions * 1e9, rel=2e-3)


def test_the_core_is_as_fast_as_it_was_measured() -> None:
    """99 tokens/s at 64 rows."""
    made = need(Work(64, decoded=64 * 40), PROFILES["smollm2-135m-instruct"].shape, MACHINES["cpu-core"], longest=72)
    assert 64 * 40 / (made.hours * 3600) == pytest.approx(99, rel=0.15)


def test_memory_of_weights_and_of_what_they_leave() -> None:
    shape = PROFILES["qwen2.5-math-7b"].shape
    assert need(Work(), shape, MACHINES["h200"], longest=3192).memory_gb == pytest.approx(15.6, rel=0.02)
    one = need(Work(completions=1, decoded=900), shape, MACHINES["h100-80gb"], longest=3192)
    many = need(Work(completions=1e6, decoded=9e8), shape, MACHINES["h100-80gb"], longest=3192)
    assert one.memory_gb < 16 < many.memory_gb < 80
    assert many.hours < 1e6 * one.hours / 50  # rows share the reading of weights


def test_more_work_takes_longer_and_two_works_add_up() -> None:
    shape, machine = PROFILES["llama-3.1-8b-instruct"].shape, MACHINES["a100-80gb"]
    a, b = Work(512, 512e3, 64e3, 8), Work(512, 512e3, 128e3, 4)
    both = need(a + b, shape, machine, longest=1000)
    parts = [need(one, shape, machine, longest=1000) for one in (a, b)]
    assert both.hours == pytest.approx(sum(one.hours for one in parts))
    assert both.memory_gb == max(one.memory_gb for one in parts)
    assert (a * 2).decoded == 2 * a.decoded


def test_a_subject_counts_only_sets_that_are_there() -> None:
    subject = Subject(28, 28, 4, 100, 900, own=28, sets=("all-layer", "all-layer@0", "single-layer"))
    assert subject.beside(("all-layer", "all-layer@1", "single-layer/12", "random-reward")) == 2
    assert (subject.some(0), subject.some(8), subject.some(99)) == (28, 8, 28)
    longer = dataclasses.replace(subject, length=1800)
    assert longer.complete(3).decoded == 2 * subject.complete(3).decoded


def test_benchmarks_come_in_turn_and_evenly() -> None:
    tests = {
        "a": [Problem(f"a{i}", str(i), "1") for i in range(2)],
        "b": [Problem(f"b{i}", str(i), "1") for i in range(6)],
    }
    found = in_turn(tests, 2)
    assert [(one.template, one.problem) for one in found] == [("a", "0"), ("b", "0"), ("a", "1"), ("b", "3")]
    assert len({one.id for one in found}) == 4


def test_quick_asks_for_what_two_cores_do_in_twenty_minutes() -> None:
    """632,000 tokens, shared completions counted in each entry, took them 17 minutes."""
    profile, asked = PROFILES["smollm2-135m-instruct"], Work()
    for entry in manifest():
        experiment = registry.load("experiments", entry.experiment).at("quick", **entry.settings)
        assert entry.work is not None
        asked = asked + entry.work(experiment, subject(profile, profile.length, experiment.prefers, None))
    assert asked.tokens < 700_000

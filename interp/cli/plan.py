"""The table of `interp paper --dry-run`: what each entry would ask of the model, and how long that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp import registry
from interp.costs import MACHINES, Machine, Subject, Work, need
from interp.errors import UserError
from interp.given import default_vectors, plain_name
from interp.profiles import Profile

HEAD = ("figure", "experiment", "n", "completions", "tokens", "memory GB", "hours")
UNKNOWN = "?"


def table(
    entries: Sequence[Any], profile: Profile, scale: str, *, machine: str, tokens: int | None, vectors: str | None
) -> str:
    """A line for each entry and their sum.

    Args:
        entries: of the manifest, with the settings of this call.
        profile: the model.
        scale: of the runs.
        machine: of `MACHINES`.
        tokens: mean tokens of a completion; the profile's if None.
        vectors: that every experiment would be made with; each experiment's own preference if None.
    """
    length, device = tokens or profile.length, MACHINES[machine]
    longest = profile.prompt + max(profile.longest, length)
    blocks = None if vectors is None else blocks_of(vectors, profile)
    rows: list[Sequence[str]] = [HEAD]
    total, hours, memory = Work(), 0.0, 0.0
    for entry in entries:
        experiment = registry.load("experiments", entry.experiment).at(scale, **entry.settings) if entry.ready else None
        if experiment is None or entry.work is None:
            rows.append((entry.key, entry.experiment, *[UNKNOWN] * 5))
            continue
        experiment = experiment.model_copy(update={"n": min(experiment.n, profile.problems)})
        work = entry.work(experiment, subject(profile, length, experiment.prefers, blocks))
        needs = need(work, profile.shape, device, longest=longest)
        total, hours, memory = total + work, hours + needs.hours, max(memory, needs.memory_gb)
        rows.append((entry.key, entry.experiment, str(experiment.n), *_numbers(work, needs.memory_gb, needs.hours)))
    rows.append(("all", "", "", *_numbers(total, memory, hours)))
    return "\n".join([*_aligned(rows), *_notes(profile, device, machine, length, memory)])


def blocks_of(vectors: str, profile: Profile) -> int:
    """Return how many blocks named vectors have; all of the model's where they are computed from it.

    Raises:
        UserError: they cannot be read, or are of another width or depth than the model.
    """
    if registry.offers("vectors", vectors):
        return profile.shape.layers
    loaded = registry.load("vectors", "intervention")(vectors)
    layers = tuple(loaded.layers)
    width = getattr(loaded, "d_model", profile.shape.d_model)
    if width != profile.shape.d_model or max(layers) >= profile.shape.layers:
        works = f"d_model {profile.shape.d_model}, layers 0 to {profile.shape.layers - 1}"
        given = f"d_model {width}, layers up to {max(layers)}"
        raise UserError("these vectors do not fit the model", given=given, works=works)
    return len(layers)


def subject(profile: Profile, length: int, prefers: Sequence[str], studied: int | None) -> Subject:
    """Model and vectors as the formulas of the manifest take them.

    Args:
        profile: the model.
        length: mean tokens of a completion.
        prefers: sets that an experiment prefers where none is named.
        studied: blocks of the vectors that every experiment would be made with; None = none was named.
    """
    depth = profile.shape.layers
    blocks = {alias: len(one.files) if one.apart else depth for alias, one in _shipped(profile.model).items()}
    own = depth if studied is None else studied
    if studied is None:
        own = blocks.get(default_vectors(profile.model, prefers).removeprefix(f"{profile.model}/"), depth)
    return Subject(
        layers=depth,
        heads=profile.shape.heads,
        kv_heads=profile.shape.kv_heads,
        prompt=profile.prompt,
        length=length,
        own=own,
        sets=tuple(blocks),
        evaluated=profile.recorded,
    )


def _shipped(model: str) -> Mapping[str, Any]:
    """The sets that come with a model, by `set` and by `set@seed`."""
    found = [one for one in registry.load("vectors", "catalogue")() if one.model == model]
    return {name: one for one in found for name in (one.set, f"{one.set}@{one.seed}")}


def _numbers(work: Work, memory: float, hours: float) -> tuple[str, ...]:
    return f"{work.completions:,.0f}", _short(work.tokens), f"{memory:.1f}", f"{hours:.2g}"


def _short(count: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def _parameters(profile: Profile) -> str:
    count = profile.shape.parameters
    return f"{profile.shape.layers} blocks, {_short(count)} parameters"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _notes(profile: Profile, device: Machine, machine: str, length: int, memory: float) -> list[str]:
    said = [
        f"on {plain_name(profile.model)} ({_parameters(profile)}), {plain_name(profile.task)}: completions of {length} "
        "tokens (--tokens), without set-up and grading",
        f"hours on one {machine} (--gpu): {device.memory_gb:g} GB, {device.bandwidth:g} GB/s and {device.teraflops:g} "
        f"TFLOP/s, if {device.part:.0%} of these are reached; derived, not measured",
        "completions that entries share are counted in each, and made once",
    ]
    if memory > device.memory_gb:
        said.append(f"more memory than one {machine} has: take fewer problems (--n) or a larger device")
    return said

"""AdaptiveScaling: kinds of words by hand, strengths against PEFT's formula, planted and random adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from experiments import AdaptiveScaling, TokenSubstitution
from experiments import adaptive_causal as causal
from experiments.adaptive_coefficients import Rows, activations, oriented, random_readers, rows_of, strengths
from experiments.adaptive_frames import contrast, judge_words, shuffled
from experiments.adaptive_words import token_kinds, words
from interp.context import Context
from interp.errors import UserError
from interp.grading import Regex
from interp.model import Model
from interp.positions import Positions
from interp.run import Run
from interp.sites import Site
from interp.store import Store
from interp.tasks.task import Problem, Task
from tests.experiments import toys
from vectors import AdaptiveVectors, Card, load_vectors
from vectors.controls import permuted_adapters, random_adapters
from vectors.formats import peft_lora

LAYER = 1
NAMES = ("Anna", "Ben", "Emma", "Felix", "Grace", "Henry", "Iris", "Paul")


def problems() -> list[Problem]:
    """Short texts with all kinds of words; right = the completion starts with "7"."""
    made: list[Problem] = []
    for split, count in (("train", 8), ("test", 24)):
        for index in range(count):
            text = f"{NAMES[index % 8]} has {2 + index} pens and {3 + index // 2} cups. How many pens are in it?"
            made.append(Problem(f"{split}-{index}", text, toys.ANSWER, split=split))  # pyright: ignore[reportArgumentType]
    return made


@pytest.fixture(scope="module")
def model() -> Model:
    return toys.model()


@pytest.fixture(scope="module")
def task() -> Task:
    return Task("words", problems, scorer=Regex("^(.)"), max_new_tokens=4)


@pytest.fixture(scope="module")
def ctx(model: Model, task: Task, tmp_path_factory: pytest.TempPathFactory) -> Context:
    store = Store(tmp_path_factory.mktemp("runs"))
    return Context(model=model, task=task, vectors=adapter(model), n=16, store=store)


def adapter(
    model: Model,
    a: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    *,
    layers: tuple[int, ...] = (LAYER,),
    scale: float = 1.0,
    trained: Any = "apart",
) -> AdaptiveVectors:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(len(layers), model.cfg.d_mlp, generator=generator) if a is None else a
    b = torch.randn(len(layers), model.d_model, generator=generator) if b is None else b
    card = Card(
        name="toy", kind="rank1", site="mlp_out", d_model=model.d_model, n_layers=model.n_layers, trained=trained
    )
    return AdaptiveVectors(a, b, (scale,) * len(layers), layers, card)


def part(frame: Any, **wanted: object) -> Any:
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def test_words_of_a_problem_by_hand() -> None:
    text = "Tina has 9 lemons. On Monday Tina buys half a dozen more. How many lemons does Tina have now?"
    assert [(text[start:stop], kind) for start, stop, kind in words(text)] == [
        ("Tina", "name"),
        ("has", "function word"),
        ("9", "number"),
        ("lemons", "asked quantity"),
        ("On", "function word"),
        ("Monday", "name"),
        ("Tina", "name"),
        ("buys", "other word"),
        ("half", "number"),
        ("a", "function word"),
        ("dozen", "number"),
        ("more", "function word"),
        ("How", "function word"),
        ("many", "function word"),
        ("lemons", "asked quantity"),
        ("does", "function word"),
        ("Tina", "name"),
        ("have", "function word"),
        ("now", "other word"),
    ]


def test_the_asked_quantity_is_found_in_other_wordings() -> None:
    def asked(text: str) -> list[str]:
        return [text[start:stop] for start, stop, kind in words(text) if kind == "asked quantity"]

    assert asked("A train covers 60 miles. What is the speed of the train?") == ["speed"]
    assert asked("Find the area of a 3 by 4 rectangle.") == ["area"]
    assert asked("Each apple costs $2. How much money do 3 apples cost?") == ["money"]
    assert asked("She says hello.") == []


def test_every_token_of_a_word_has_its_kind(model: Model, task: Task) -> None:
    prompt = task.prompt(model.tokenizer, task.problems("test")[12])
    kinds = token_kinds(model, prompt)
    start, stop = prompt.spans["problem"]
    text = "".join(model.token_text(token) for token in prompt.ids[start:stop])
    by_character = ["mark"] * len(text)
    for left, right, kind in words(text):
        by_character[left:right] = [kind] * (right - left)
    assert kinds[start:stop] == by_character  # one token a byte here
    assert set(kinds[:start] + kinds[stop:]) == {""}


def test_strengths_are_those_of_lora_and_come_back_from_a_peft_folder(
    ctx: Context, model: Model, tmp_path: Path
) -> None:
    folder = peft_lora.write(tmp_path / "adapter", adapter(model, scale=0.5))
    vectors = load_vectors(folder)
    assert isinstance(vectors, AdaptiveVectors)
    rows = rows_of(ctx, "test", 4, vectors, text="steered")
    found = strengths(ctx, rows, vectors, {})[LAYER]
    # LoRA's own formula from the files: (alpha / r) B (A x)
    tensors, config = (
        load_file(folder / "adapter_model.safetensors"),
        json.loads((folder / "adapter_config.json").read_text()),
    )
    big_a, big_b = (next(value for name, value in tensors.items() if f"lora_{key}" in name) for key in "AB")
    post = next(iter(activations(ctx, rows, [LAYER])))[1][LAYER][0]
    lora = (post @ big_a.T @ big_b.T) * config["lora_alpha"] / config["r"]
    b = vectors.b[0] / vectors.b[0].norm()
    real = rows.batch.mask
    assert torch.allclose(found.coefficient[real], (lora @ b)[real], atol=1e-5)


def test_adapters_that_act_together_are_read_together(ctx: Context, model: Model) -> None:
    both = adapter(model, layers=(0, 2), trained="together")
    rows = rows_of(ctx, "test", 4, both, text="base")
    found = strengths(ctx, rows, both, {})
    trace = model.run(rows.batch, both.edits(), [Site(2, "mlp_post"), Site(2, "mlp_out")])
    by_hand = (trace[Site(2, "mlp_post")] @ both.a[1]) * both.b[1].norm()
    real = rows.batch.mask
    assert torch.allclose(found[2].coefficient[real], by_hand[real], rtol=1e-4, atol=1e-4)
    plain = trace[Site(2, "mlp_out")] - (by_hand / both.b[1].norm())[..., None] * both.b[1]
    inner = rows.batch.position > 0
    assert found[2].median == pytest.approx(float(plain.norm(dim=-1)[inner].median()), rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(plain, both.b[1], dim=-1)
    assert torch.allclose(found[2].cosine[real], cosine[real], atol=1e-4)


def test_the_sign_follows_the_reference(ctx: Context, model: Model, tmp_path: Path) -> None:
    vectors = adapter(model)
    path = toys.wrap(model, -vectors.b, (LAYER,)).save(tmp_path / "reference.safetensors")
    turned = oriented(ctx, vectors, str(path))
    assert torch.equal(turned.b, -vectors.b) and torch.equal(turned.a, -vectors.a)
    experiment = AdaptiveScaling(reference=str(path))
    assert experiment.inputs(ctx) == {"reference": load_vectors(path).digest}
    assert AdaptiveScaling(reference="").inputs(ctx) == {}


def test_positions_without_some_tokens(model: Model) -> None:
    assert causal.all_but([3, 4], 8) == Positions(prompt=(0, 1, 2, -3, -2, -1))
    assert causal.all_but([1, 4], 6) == Positions(prompt=(0, -4, -3, -1))
    assert causal.all_but([], 5) == Positions()
    assert causal.all_but([0, 1], 2) == Positions(prompt="none")


def test_a_part_that_is_off_and_its_random_tokens_are_equally_many(ctx: Context, model: Model) -> None:
    on = adapter(model)
    rows = rows_of(ctx, "test", 4, on, text="steered")
    for name in ("problem", "number", "generated"):
        for row in range(4):
            inside = causal.members(rows, row, name)
            drawn = causal.random_members(rows, row, name, (0, 0))
            assert not set(inside) & set(drawn) and 0 not in drawn
            start = int((~rows.batch.mask[row]).sum())
            assert all(rows.counted[row][start + index] for index in drawn)
            if name == "number":
                assert len(drawn) == len(inside) > 0
    every = causal.conditions(on, (), rows, ("number",), draws=2, seed=0)
    assert [one.at["applied"] for one in every] == ["nowhere", "everywhere", "mean", *["without number"] * 3]
    number = every[3].rotation[0][0]
    trace = model.run(rows.batch.rows(slice(0, 1)), [number])
    assert trace.fired[0].touched == int(rows.batch.mask[0].sum()) - len(causal.members(rows, 0, "number"))


def test_held_at_its_mean_it_adds_the_mean(ctx: Context, model: Model) -> None:
    on = adapter(model)
    rows = rows_of(ctx, "train", 4, on, text="steered")
    found = strengths(ctx, rows, on, {})
    (edit,) = causal.held_at_mean(on, found, rows)
    c = found[LAYER].coefficient.numpy()
    mean = np.mean([c[row][rows.counted[row]].mean() for row in range(4)])
    delta = edit.scale * edit.direction  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.allclose(delta, torch.tensor(mean) * on.b[0] / on.b[0].norm(), rtol=1e-5)


def planted(ctx: Context, model: Model) -> AdaptiveVectors:
    """Reads what tells digits and names from function words, by least squares on training problems."""
    on = adapter(model)
    rows = rows_of(ctx, "train", 8, on, text="base")
    post = next(iter(activations(ctx, rows, [LAYER])))[1][LAYER][0].numpy()
    content = rows.counted & np.isin(rows.kind, ("number", "name", "asked quantity"))
    target = content.astype(float)[rows.counted]
    a, *_ = np.linalg.lstsq(post[rows.counted], target, rcond=1e-4)
    return adapter(model, torch.tensor(a, dtype=torch.float32)[None])


@pytest.fixture(scope="module")
def run(ctx: Context, model: Model, task: Task, tmp_path_factory: pytest.TempPathFactory) -> Run:
    experiment = AdaptiveScaling.at("quick", n=16, draws=8, shown=2, reference="", parts=("problem", "generated"))
    return experiment.run(model, planted(ctx, model), task, out=tmp_path_factory.mktemp("planted"), progress=False)


def test_a_planted_adapter_sits_on_content_words(run: Run) -> None:
    verdicts = {verdict["claim"]: verdict["phrase"] for verdict in run.verdicts}
    assert verdicts["magnitude-sits-on-content-words"] == "same direction"
    rows = part(run.frame, part="contrast")
    assert rows.groupby("vector").size().to_dict() == {
        "trained": 1,
        "random-isotropic": 8,
        "random-covariance": 8,
        "shuffled-tokens": 8,
    }
    relative = part(run.frame, part="words", vector="trained").set_index("word")["relative"]
    assert relative["number"] > 1 > relative["function word"]
    assert all("adapter gains" in phrase for claim, phrase in verdicts.items() if claim.startswith("strength"))


def test_frames_say_what_they_are_made_of(run: Run) -> None:
    rows = part(run.frame, part="tokens")
    own = rows[(rows["segment"] == "problem") & (rows["word"] != "mark")].copy()
    own["size"] = own["c"].abs()
    per = own.groupby("example").apply(
        lambda one: pd.Series(
            {
                "content": one.loc[one["word"].isin(["number", "name", "asked quantity"]), "size"].mean(),
                "function": one.loc[one["word"] == "function word", "size"].mean(),
            }
        ),
        include_groups=False,
    )
    by_hand = (per["content"].sum() - per["function"].sum()) / per.to_numpy().sum()
    assert float(part(run.frame, part="contrast", vector="trained")["contrast"].iloc[0]) == pytest.approx(by_hand)
    lost = part(run.frame, part="lost").set_index("applied")
    assert list(lost.index) == ["mean", "without problem", "without generated"]
    answers = part(run.frame, part="answers")
    everywhere = part(answers, vector="trained", applied="everywhere")["right"].mean()
    mean = part(answers, vector="trained", applied="mean")["right"].mean()
    assert lost.loc["mean", "lost"] == pytest.approx(everywhere - mean)
    assert set(part(run.frame, part="segments")["segment"]) <= {"system", "example", "problem", "generated"}


def test_random_readers_come_out_in_the_same_direction_in_at_most_5_percent(ctx: Context, model: Model) -> None:
    rows = rows_of(ctx, "test", 16, adapter(model), text="base")
    a = torch.ones(model.cfg.d_mlp)
    readers = random_readers(ctx, a, LAYER, "random-isotropic", 36, rows)
    assert torch.allclose(readers.norm(dim=1), a.norm())
    found = strengths(ctx, rows, adapter(model), {LAYER: readers})[LAYER].c[1:].numpy()
    same: list[bool] = []
    for start in range(0, 36, 9):
        group = [contrast(c, rows, intervals=True) for c in found[start : start + 9]]
        for own in range(9):
            drawn = [{**one, "vector": "random-isotropic", "draw": d} for d, one in enumerate(group) if d != own]
            mixed = [
                {
                    **contrast(shuffled(found[start + own], rows, d, 0), rows, intervals=False),
                    "vector": "shuffled",
                    "draw": d,
                }
                for d in range(8)
            ]
            frame = pd.DataFrame([{**group[own], "vector": "trained", "draw": 0}, *drawn, *mixed])
            same.append(judge_words(frame, 0.1).phrase == "same direction")
    assert np.mean(same) <= 0.05


def test_shuffles_keep_each_problems_words(ctx: Context, model: Model) -> None:
    rows: Rows = rows_of(ctx, "test", 4, adapter(model), text="base")
    c = strengths(ctx, rows, adapter(model), {})[LAYER].c[0].numpy()
    mixed = shuffled(c, rows, 0, 0)
    moved = (c != mixed).any(1)
    assert moved.all()
    for row in range(4):
        inside = (rows.kind[row] != "mark") & (rows.kind[row] != "") & rows.counted[row]
        assert sorted(c[row][inside]) == sorted(mixed[row][inside])
        assert (c[row][~inside] == mixed[row][~inside]).all()


def test_random_readers_have_the_covariance_of_the_activations(ctx: Context, model: Model) -> None:
    said = rows_of(ctx, "train", 8, adapter(model), text="base")
    post = next(iter(activations(ctx, said, [LAYER])))[1][LAYER][0].numpy()[said.counted]
    drawn = random_readers(ctx, torch.ones(model.cfg.d_mlp), LAYER, "random-covariance", 400, said).numpy()
    value, axes = np.linalg.eigh(np.cov(post.T))
    spread = ((drawn @ axes) ** 2).mean(0)
    assert np.corrcoef(spread, value)[0, 1] > 0.95


def test_the_strongest_block_of_a_set_is_chosen_on_training_problems(model: Model, task: Task, runs: Path) -> None:
    vectors = adapter(model, layers=(0, 1, 2), b=torch.ones(3, model.d_model) * torch.tensor([[1.0], [9.0], [1.0]]))
    experiment = AdaptiveScaling(n=4, draws=3, train_n=2, shown=1, reference="", temperatures=())
    found = experiment.run(model, vectors, task, out=runs, progress=False).frame
    assert set(part(found, part="contrast")["layer"]) == {1}
    sizes = part(found, part="tokens").groupby("layer")["example"].nunique().to_dict()
    assert sizes == {0: 1, 1: 4, 2: 1}


def test_other_vectors_are_refused(model: Model, task: Task, runs: Path) -> None:
    with pytest.raises(UserError, match="needs adaptive vectors"):
        AdaptiveScaling.at("smoke").run(model, toys.random(model, scale=1.0), task, out=runs, progress=False)
    wide = adapter(model, torch.ones(1, 7))
    with pytest.raises(UserError, match="do not fit"):
        AdaptiveScaling.at("smoke", reference="").run(model, wide, task, out=runs, progress=False)


def test_an_adapter_is_studied_like_a_vector_beside_random_adapters(model: Model, task: Task, runs: Path) -> None:
    vectors = adapter(model)
    experiment = TokenSubstitution(n=8, draws=3, causal_draws=3, chosen=2, at_most=1, train_n=2)
    found = experiment.run(model, vectors, task, out=runs, progress=False).frame
    draws = part(found, part="positions").groupby("vector")["draw"].nunique().to_dict()
    random = {"random-isotropic": 3, "random-effect-matched": 3, "permuted": 3}
    assert draws == {"trained": 1, **random, "negated": 1}
    assert set(part(found, part="causal")["vector"]) == {"base", "trained", "random-effect-matched"}
    drawn = [*random_adapters(vectors, draws=2), *permuted_adapters(vectors, draws=2)]
    assert len({one.digest for one in drawn}) == 4
    for one in drawn:
        assert one.norms[LAYER] == pytest.approx(vectors.norms[LAYER], rel=1e-5)
    assert sorted(drawn[2].a[0].tolist()) == sorted(vectors.a[0].tolist())


@pytest.mark.slow
def test_on_the_embedded_model_four_problems_decide_nothing(runs: Path) -> None:
    from interp import load_model, load_task

    embedded = load_model("smollm2-135m-instruct")
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1, embedded.cfg.d_mlp, generator=generator)
    vectors = adapter(embedded, a, torch.randn(1, embedded.d_model, generator=generator), layers=(12,))
    run = AdaptiveScaling.at("smoke").run(embedded, 0.1 * vectors, load_task("word-problems"), out=runs, progress=False)
    assert set(run.frame["part"]) == {
        "tokens",
        "segments",
        "words",
        "contrast",
        "agreement",
        "causal",
        "lost",
        "answers",
    }
    assert all(verdict["phrase"].startswith("not testable here") for verdict in run.verdicts)

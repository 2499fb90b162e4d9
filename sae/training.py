"""Train a sparse autoencoder of the change that an intervention makes (DiffSAE), or of the stream itself.

sae-lens trains; this module streams activations to it and measures the result on held-out problems
(arXiv:2509.06608 figs 7, 8; layers, width and sparsity are not known from there, so ours are settings).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from interp.bare_model import takes_model
from interp.batch import Batch
from interp.completions import paired_rows
from interp.errors import UserError
from interp.files import disk_errors, write_text
from interp.given import as_model
from interp.settings import Block, Count, Seed, Settings, Size
from interp.sites import Site
from sae.card import Of, SaeCard
from sae.dictionary import Dictionary, hook_of
from sae.loading import load
from sae.report import Report, explained, recovery, sparsity
from sae.source import again, chunks, shuffled

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"problems": 24, "held_out": 8, "features": 64, "steps": 40, "batch": 128, "buffer": 512},
    "quick": {},
    "full": {"problems": 4096, "held_out": 128, "features": 4096, "steps": 20000, "batch": 512, "buffer": 65536},
}
"""Settings of each scale that differ from the defaults."""


class TrainSettings(Settings):
    """How a sparse autoencoder is trained."""

    layer: Block | None = None
    """Block k whose output is described; two thirds of the model's depth if none."""
    of: Of = "change"
    """`change` (DiffSAE) or `stream` (plain), both on completions under the vectors."""
    features: Count = 512
    """Width of the dictionary."""
    kind: Literal["topk", "batchtopk"] = "topk"
    """Activation: TopK keeps k features of each token; BatchTopK k on average, and is saved with a threshold."""
    k: Count = 16
    """Active features of a token."""
    problems: Count = 320
    """Training problems, one completion each."""
    held_out: Count = 40
    """Validation problems for the report."""
    steps: Count = 2000
    """Updates; the activations are computed once and seen again in other orders."""
    batch: Count = 256
    """Tokens of an update."""
    buffer: Count = 8192
    """Tokens among which batches are drawn."""
    rate: Size = 1e-3
    """Adam's rate, decayed to zero over the last fifth."""
    seed: Seed = 0
    """Of completions, order and start."""

    @classmethod
    def at(cls, scale: str, **overrides: object) -> TrainSettings:
        """The settings of a scale, some of them replaced."""
        if scale not in SCALES:
            raise UserError("no such scale", given=scale, works=f"use one of {', '.join(SCALES)}")
        settings = cls.model_validate({**SCALES[scale], **overrides})
        if settings.k > settings.features:
            raise UserError(
                f"a dictionary of {settings.features} features has no {settings.k} active ones", works="a smaller k"
            )
        return settings


@dataclass(frozen=True)
class Trained:
    """A trained dictionary, as it was loaded again from its folder.

    Attributes:
        dictionary: ready to use.
        report: on held-out problems; also in the dictionary's card.
        path: the folder, which `sae.load` takes.
    """

    dictionary: Dictionary
    report: Report
    path: Path


@takes_model
def train(
    model: Any,
    vectors: Any,
    task: Any,
    settings: TrainSettings | None = None,
    *,
    out: str | Path = "runs/sae",
    name: str = "",
    say: Callable[[str], None] = print,
) -> Trained:
    """Train on completions of training problems under an intervention, and report on validation problems.

    Args:
        model: a Model.
        vectors: the intervention; its edits are on in every completion, and of a DiffSAE off in the base stream.
        task: with a train and a validation split.
        settings: the defaults if none.
        out: folder to write to; the SAE lies in a folder of its name below it.
        name: of the folder; from vectors and block if empty.
        say: told about progress, a line each.

    Raises:
        UserError: the change is a constant at this block, or there is no such block.
    """
    model, settings = as_model(model), settings or TrainSettings()
    site = _site(model, vectors, settings)
    rows = _Rows(model, vectors, task, settings, site, say)
    inner = _fit(rows.train(), settings, model, site, say)
    held = torch.cat(list(rows.held_out())).to(model.device)
    card = _card(model, vectors, task, settings, site, name or f"{_named(vectors)}/{settings.of}-{site.layer}")
    path = save(inner, Path(out) / card.name, card)
    report = _report(model, rows, inner, load(path, model), held)
    write_card(path, card.model_copy(update={"report": report.model_dump()}))
    return Trained(load(path, model), report, path)


def _report(model: Any, rows: _Rows, inner: Any, loaded: Dictionary, held: Tensor) -> Report:
    """Measured with what was loaded again; L0 with what was trained, too."""
    active = torch.cat([(inner.encode(part) != 0).sum(1) for part in held.split(4096)])
    change = loaded.card.of == "change"
    kl, recovered = recovery(model, rows.batch(), rows.edits, loaded) if change else (0.0, 0.0)
    l0, dead = sparsity(loaded, held)
    return Report(
        explained=explained(held, loaded.reconstruct(held)),
        l0_trained=float(active.float().mean()),
        l0=l0,
        dead=dead,
        kl=kl,
        recovered=recovered,
        tokens=len(held),
    )


class _Rows:
    """Activations of training and of held-out problems."""

    def __init__(
        self, model: Any, vectors: Any, task: Any, settings: TrainSettings, site: Site, say: Callable[[str], None]
    ) -> None:
        self.model, self.edits, self.task, self.settings, self.site = model, vectors.edits(), task, settings, site
        self.say = say

    def _stream(self, split: str, count: int) -> Iterator[Tensor]:
        problems = self.task.problems(split)[:count]
        prompts = [self.task.prompt(self.model.tokenizer, problem) for problem in problems]
        keys = [problem.id for problem in problems]
        length, settings = int(self.task.max_new_tokens), self.settings
        made = 0
        for chunk in chunks(
            self.model, prompts, keys, self.edits, self.site, of=settings.of, max_new_tokens=length, seed=settings.seed
        ):
            made += len(chunk)
            self.say(f"{split}: {made} tokens")
            yield chunk.cpu()

    def train(self) -> Iterator[Tensor]:
        settings = self.settings
        stream = again(self._stream("train", settings.problems), settings.seed)
        return shuffled(stream, settings.batch, settings.buffer)

    def held_out(self) -> Iterator[Tensor]:
        return self._stream("validation", self.settings.held_out)

    def batch(self) -> Batch:
        """The first held-out problems with completions under the edits."""
        problems = self.task.problems("validation")[: min(16, self.settings.held_out)]
        prompts = [self.task.prompt(self.model.tokenizer, problem) for problem in problems]
        keys = [problem.id for problem in problems]
        length = int(self.task.max_new_tokens)
        said = self.model.generate(prompts, self.edits, max_new_tokens=length, seed=self.settings.seed, keys=keys)
        return Batch.of(*paired_rows(said), device=self.model.device)


def _named(vectors: Any) -> str:
    """What the folder is called by: the set's alias without the first seed."""
    name = str(getattr(vectors.card, "name", "")) or vectors.digest
    return name.removesuffix("@0").replace("@", "-")


def _site(model: Any, vectors: Any, settings: TrainSettings) -> Site:
    layer = 2 * model.n_layers // 3 if settings.layer is None else settings.layer
    if not 0 <= layer < model.n_layers:
        raise UserError(f"the model has blocks 0 to {model.n_layers - 1}", given=layer)
    lowest = min(site.layer for edit in vectors.edits() for site in edit.sites)
    if settings.of == "change" and layer <= lowest:
        works = f"a block above {lowest}"
        raise UserError("where a vector is added, the change is the same for every token", given=layer, works=works)
    return Site(layer, "resid_post")


def _fit(batches: Iterator[Tensor], settings: TrainSettings, model: Any, site: Site, say: Callable[[str], None]) -> Any:
    """Hand the batches to sae-lens until they end."""
    from sae_lens import SAETrainer
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig

    torch.manual_seed(settings.seed)  # sae-lens starts its weights and shuffles from the global generator
    device = str(model.device)
    common: dict[str, Any] = {"d_in": model.d_model, "d_sae": settings.features, "k": settings.k, "device": device}
    common["normalize_activations"] = "expected_average_only_in"
    if settings.kind == "topk":
        inner: Any = TopKTrainingSAE(TopKTrainingSAEConfig(**common))
    else:
        inner = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**common))
    inner.cfg.metadata.hook_name, inner.cfg.metadata.model_name = hook_of(site), model.name
    config = SAETrainerConfig(
        total_training_samples=settings.steps * settings.batch,
        train_batch_size_samples=settings.batch,
        device=device,
        lr=settings.rate,
        lr_end=0.0,
        lr_decay_steps=settings.steps // 5,
        dead_feature_window=min(1000, max(10, settings.steps // 8)),
        n_batches_for_norm_estimate=min(50, settings.steps),
    )
    with contextlib.redirect_stderr(io.StringIO()):  # its own progress bar
        return SAETrainer(config, sae=inner, data_provider=_told(batches, settings.steps, say)).fit().eval()


def _told(batches: Iterator[Tensor], steps: int, say: Callable[[str], None]) -> Iterator[Tensor]:
    """Tell of every tenth of the batches."""
    for number, batch in enumerate(batches):
        if number % max(1, steps // 10) == 0:
            say(f"batch {number} of {steps}")
        yield batch


def save(inner: Any, folder: Path, card: SaeCard) -> Path:
    """Write what `sae.load` and `SAE.load_from_disk` read: sae-lens' inference model, and our card beside it."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        inner.save_inference_model(folder)
    write_card(folder, card)  # last: without it the folder is not listed
    return folder


def write_card(folder: Path, card: SaeCard) -> None:
    """Write the card beside an autoencoder."""
    write_text(folder / "card.json", card.model_dump_json(indent=1) + "\n")


def _card(model: Any, vectors: Any, task: Any, settings: TrainSettings, site: Site, name: str) -> SaeCard:
    from importlib.metadata import version

    recipe: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "task": {"name": task.name, "digest": task.digest},
        "text": "completions of training problems under the vectors, T = 1",
        "tokens": "of the problem and of the completion; not the row's first token, system message, example, template",
        "trainer": f"sae-lens {version('sae-lens')}",
    }
    return SaeCard(
        name=name,
        of=settings.of,
        hook=hook_of(site),
        base_model=model.name,
        lineage=model.lineage,
        fingerprint=model.fingerprint,
        vectors=str(getattr(vectors.card, "name", "")) if settings.of == "change" else "",
        vectors_digest=vectors.digest if settings.of == "change" else "",
        recipe=recipe,
    )

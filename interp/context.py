"""What an experiment is given to measure with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from interp.bare_model import takes_model
from interp.errors import UserError
from interp.fired import add_count
from interp.selection import whole
from interp.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from interp.completion_cache import Request
    from interp.completions import Completions
    from interp.editor import Fired
    from interp.prompts import Prompt
    from interp.store import RunFolder
    from interp.tasks.task import Problem, Split

Made = TypeVar("Made")
Say = Callable[[str], None]
Recall = Callable[["Context", Any], "pd.DataFrame"]


def silent(text: str) -> None:
    """Say nothing."""


@takes_model
@dataclass
class Context:
    """Model, vectors and task of a run, what it may use, and what earlier runs and completions it can build on.

    Attributes:
        model: a Model; None if the experiment needs none.
        vectors: an Intervention; None if the experiment needs none.
        task: a Task; None if the experiment needs none.
        n: number of problems.
        seed: seed of every random stream.
        store: where runs and completions are kept.
        memory: bound in GB on what generation may hold; None chooses.
        scale: name of the scale that the settings came from; recorded only.
        progress: show progress.
        say: tells the user something in one line.
        folder: where the run is written; large tensors go there.
        names: what the user called model, vectors and task; recorded only.
        asked: flags with which the command line repeats the run, without its settings; recorded only.
        recaller: runs or recalls another experiment; the runner gives it.
        sources: what completes prompts in the model's place; see `interp.completion_sources`.
    """

    model: Any = None
    vectors: Any = None
    task: Any = None
    n: int = 64
    seed: int = 0
    store: Store = field(default_factory=Store)
    memory: float | None = None
    scale: str = ""
    progress: bool = False
    say: Say = silent
    folder: RunFolder | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    recaller: Recall | None = None
    sources: tuple[Any, ...] = ()
    _fired: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _made: dict[str, Any] = field(default_factory=dict)

    def problems(self, split: Split = "test", n: int | None = None) -> list[Problem]:
        """The first n problems of a split, `self.n` by default (all, if the split has fewer)."""
        if self.task is None:
            raise UserError("this experiment needs a task", works="give --task or task=")
        wanted = whole(self.n if n is None else n, "n, the number of problems,")
        if wanted < 1:
            raise UserError("at least one problem is needed", given=f"n = {wanted}")
        every: list[Problem] = self.task.problems(split)
        if len(every) < wanted:
            self.say(f"{self.task.name} has {len(every)} {split} problems, so n = {len(every)} instead of {wanted}")
        return every[:wanted]

    def prompts(self, problems: Sequence[Problem]) -> list[Prompt]:
        """The task's prompts for these problems."""
        return [self.task.prompt(self.model.tokenizer, problem) for problem in problems]

    def recall(self, other: Any, *, vectors: Any = None, task: Any = None) -> pd.DataFrame:
        """The frame of another experiment on the same model, vectors and task, run now if it is missing.

        Args:
            other: an Experiment with its settings; `n` and `seed` are its own.
            vectors: other vectors than this run's.
            task: another task than this run's.
        """
        if self.recaller is None:
            raise UserError("only the runner's context can recall another experiment")
        others = {name for name, value in (("vectors", vectors), ("task", task)) if value is not None}
        vectors, task = vectors or self.vectors, task or self.task
        inner = replace(self, vectors=vectors, task=task, n=other.n, seed=other.seed, folder=None, _fired={}, _made={})
        inner.names = {name: value for name, value in self.names.items() if name not in others}
        inner.asked = {name: value for name, value in self.asked.items() if name not in {*others, "experiment"}}
        return self.recaller(inner, other)

    def completions(
        self,
        prompts: Sequence[Prompt],
        edits: Any = (),
        *,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        samples: int = 1,
        seed: int | None = None,
        keys: Sequence[str] | None = None,
    ) -> Completions:
        """Completions of the model, made once for all runs: equal contents are read back from the disk.

        Args:
            prompts: what is asked.
            edits: a sequence of edits for all prompts, or `per_row([...])`.
            max_new_tokens: the task's own length by default, or what the model's context leaves.
            temperature: 0 is greedy.
            samples: completions of each prompt.
            seed: this run's by default.
            keys: name of each prompt's problem, by which random streams are paired; the prompt's digest if None.
        """
        from interp.completion_sources import complete_from

        request = self.request(
            prompts,
            edits,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            samples=samples,
            seed=seed,
            keys=keys,
        )
        found = complete_from(self.sources, self.model, request, self.store.completions, memory_gb=self.memory)
        self.fired(found.fired)
        return found

    def request(
        self,
        prompts: Sequence[Prompt],
        edits: Any = (),
        *,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        samples: int = 1,
        seed: int | None = None,
        keys: Sequence[str] | None = None,
    ) -> Request:
        """What `completions` asks for, by the same arguments."""
        from interp.completion_cache import Request

        length = max_new_tokens if max_new_tokens is not None else self._room(prompts)
        seed = self.seed if seed is None else seed
        named = None if keys is None else tuple(keys)
        return Request(tuple(prompts), edits, length, float(temperature), samples, seed, named)

    def related(self, name: str) -> Any:
        """Other vectors of the same model: a set that comes with it ("all-layer"), an alias or a path.

        "random-reward" stands for "all-layer-random-reward", where no set is called so.

        Returns:
            An Intervention; None where no such set comes with this model.
        """
        from interp.given import as_vectors, catalogue

        known = {name for alias in catalogue() for name in (alias, alias.partition("@")[0])}
        stem = name.partition("@")[0]
        for own in (name, f"all-layer-{name}"):
            the_set, at, seed = own.partition("@")
            if f"{self.model.name}/{the_set.split('/')[0]}{at}{seed}" in known:
                return self.once(f"related {name}", partial(as_vectors, f"{self.model.name}/{own}", self.model))
        seeds = [one for one in known if one.startswith(f"{self.model.name}/{stem.split('/')[0]}@")]
        if "@" in name and seeds:
            raise UserError("no such seed", given=name, works=f"there are {', '.join(sorted(seeds))}")
        block = stem.count("/") == 1 and stem.rpartition("/")[2].isdigit()  # of a set; an alias begins with a model
        if ("/" not in name or block) and not Path(name).exists():
            return None
        return self.once(f"related {name}", lambda: as_vectors(name, self.model))

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """What all cells of a run need, made once a process; it must follow from the run's settings alone."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _room(self, prompts: Sequence[Prompt]) -> int:
        wanted, room = int(self.task.max_new_tokens), self.model.n_ctx - max(len(prompt.ids) for prompt in prompts)
        if 0 < room < wanted:
            self.say(f"{self.model.name} holds {self.model.n_ctx} tokens: completions are cut at {room}, not {wanted}")
            return room
        return wanted

    def fired(self, fired: Sequence[Fired]) -> None:
        """Record what edits touched: the `fired` of a Trace or of Completions."""
        for count in fired:
            add_count(self._fired, asdict(count))

    def take_fired(self) -> tuple[dict[str, Any], ...]:
        """What was recorded since the last call."""
        taken = tuple(self._fired.values())
        self._fired = {}
        return taken

    def save_tensors(self, name: str, tensors: Mapping[str, Any]) -> None:
        """Keep large arrays beside the frame, as safetensors; the name should tell the cell they belong to."""
        if self.folder is not None:
            self.folder.write_tensors(name, tensors)

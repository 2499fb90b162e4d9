"""The tests that a plugin passes, a method for each group of entry points; what they ask stands in `checks`."""

from __future__ import annotations

import importlib.metadata as metadata
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

from interp import registry
from interp.experiment import Experiment
from interp.model import Model
from interp.tasks.task import Task
from interp.testing.checks import (
    check_command,
    check_experiment,
    check_figure,
    check_format,
    check_model,
    check_patch,
    check_readout,
    check_sae,
    check_task,
    check_vectors,
)
from interp.testing.tiny import tiny_model, tiny_task, tiny_vectors


class PluginConformance:
    """Subclass it under a name that begins with `Test` and say which distribution is yours.

    A group in which the distribution offers nothing is skipped. The model is random and tiny, so the tests ask for
    identities (shards add up to the whole, a file gives back what was written), never for effects.

    Attributes:
        distribution: name of the installed distribution.
        settings: experiment -> settings that make it small; its scale `smoke` with n = 2 is the start.
        readouts: readout -> an instance, where its class must be told tokens first.
    """

    distribution: ClassVar[str]
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    readouts: ClassVar[Mapping[str, Any]] = {}

    def model(self) -> Model:
        """What parts are tried on; replace it where yours need another architecture."""
        return tiny_model()

    def vectors(self, model: Model, folder: Path) -> Any:
        """What experiments are run with and formats are written with."""
        return tiny_vectors(model, folder)

    def task(self) -> Task:
        """What experiments are run on."""
        return tiny_task()

    def test_every_entry_point_loads(self) -> None:
        """Groups are spelt right, and each name leads to an object."""
        entries = list(metadata.distribution(self.distribution).entry_points)
        ours = [entry for entry in entries if entry.group.startswith("interp.")]
        assert ours, f"{self.distribution} has no entry point of a group interp.*"
        unknown = {entry.group for entry in ours} - {f"interp.{group}" for group in registry.GROUPS}
        assert not unknown, f"there is no group {sorted(unknown)}; known: {', '.join(registry.GROUPS)}"
        for entry in ours:
            registry.load(entry.group, f"{self.distribution}/{entry.name}")

    def test_no_name_is_taken(self) -> None:
        """A name that two distributions offer works for neither."""
        for row in (row for row in registry.rows() if row.distribution == self.distribution):
            taken = [one.distribution for one in registry.rows(row.group) if one.name == row.name]
            assert len(taken) == 1, f"{row.group}: {row.name} is offered by {' and '.join(sorted(taken))}"

    def test_listing_does_not_import_it(self) -> None:
        """`interp list` is fast because names are read, not modules."""
        tops = sorted({target.partition(":")[0].partition(".")[0] for target in self._targets()})
        code = (
            f"import sys; from interp import registry; registry.rows(); sys.exit(sum(t in sys.modules for t in {tops}))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"listing imports {tops}: {done.stderr}"

    def test_commands(self) -> None:
        """A click command whose help tells what it does."""
        for name, found in self._offered("commands"):
            check_command(name, found)

    def test_models(self) -> None:
        """What `load_model` takes; a model that is here computes the same in a batch as alone."""
        for name, found in self._offered("models"):
            check_model(self._full(name), found)

    def test_vectors(self, tmp_path: Path) -> None:
        """An intervention with edits and a digest that stays."""
        for name, _ in self._offered("vectors"):
            check_vectors(self._full(name), self.model(), self.task(), tmp_path)

    def test_saes(self) -> None:
        """A folder of sae-lens, or a dictionary."""
        for name, found in self._offered("saes"):
            check_sae(name, found)

    def test_tasks(self) -> None:
        """Problems with unique ids, prompts, and a scorer that knows a right answer from none."""
        for name, _ in self._offered("tasks"):
            check_task(self._full(name), self.model())

    def test_formats(self, tmp_path: Path) -> None:
        """What is written is recognised and read back bit by bit; garbage is refused in one line."""
        vectors = self.vectors(self.model(), tmp_path)
        for name, found in self._offered("formats"):
            check_format(name, found, vectors, tmp_path)

    def test_patches(self, tmp_path: Path) -> None:
        """A path patch or an edit that fires, with a digest that stays."""
        vectors = self.vectors(self.model(), tmp_path)
        for name, found in self._offered("patches"):
            check_patch(name, found, self.model(), vectors)

    def test_readouts(self) -> None:
        """Its declared columns, a value for each row, whatever rows stand beside it."""
        for name, found in self._offered("readouts"):
            check_readout(self.readouts.get(name, found), self._full(name))

    def test_experiments(self, tmp_path: Path) -> None:
        """Declared columns and settings; shards add up to the whole; a second call recalls."""
        for name, found in self._offered("experiments"):
            assert isinstance(found, type), f"{name} is no class"
            assert issubclass(found, Experiment), f"{name} is no subclass of interp.Experiment"
            check_experiment(self._small(name, found), self._given(tmp_path), tmp_path)

    def test_figures(self, tmp_path: Path) -> None:
        """Each figure draws the run of an experiment that names it."""
        experiments = list(self._offered("experiments", at_least=0))
        for name, found in self._offered("figures"):
            assert callable(found), f"{name} is no function of a run record"
            named = [(one, cls) for one, cls in experiments if {name, self._full(name)} & set(cls.figures)]
            assert named, f"no experiment of {self.distribution} names the figure {name} in `figures`"
            for one, cls in named:
                check_figure(self._full(name), self._small(one, cls), self._given(tmp_path), tmp_path)

    def test_reports(self) -> None:
        """A function."""
        for name, found in self._offered("reports"):
            assert callable(found), f"{name} is no function"

    def _given(self, folder: Path) -> dict[str, Any]:
        model = self.model()
        return {"model": model, "vectors": self.vectors(model, folder), "task": self.task()}

    def _small(self, name: str, cls: type[Experiment]) -> Experiment:
        return cls.at("smoke", **{"n": 2, **self.settings.get(name, {})})

    def _targets(self) -> list[str]:
        return [row.target for row in registry.rows() if row.distribution == self.distribution]

    def _full(self, name: str) -> str:
        return f"{self.distribution}/{name}"

    def _offered(self, group: str, at_least: int = 1) -> Iterator[tuple[str, Any]]:
        """Name and object of each entry of a group."""
        found = [row.name for row in registry.rows(group) if row.distribution == self.distribution]
        if len(found) < at_least:
            raise SkipTest(f"{self.distribution} offers no interp.{group}")
        return ((name, registry.load(group, self._full(name))) for name in found)

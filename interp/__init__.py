"""A workbench for the mechanistic study of steering vectors. Names load when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.batch import Batch as Batch
    from interp.cell import Cell as Cell
    from interp.comparison import Comparison as Comparison
    from interp.comparison import compare as compare
    from interp.completions import Completions as Completions
    from interp.context import Context as Context
    from interp.declaration import Declaration as Declaration
    from interp.edits import Add as Add
    from interp.edits import AddAdaptive as AddAdaptive
    from interp.edits import Custom as Custom
    from interp.edits import Edit as Edit
    from interp.edits import Intervention as Intervention
    from interp.edits import Patch as Patch
    from interp.edits import per_row as per_row
    from interp.errors import UserError as UserError
    from interp.evaluation import Evaluation as Evaluation
    from interp.evaluation import evaluate as evaluate
    from interp.experiment import Experiment as Experiment
    from interp.forced import Forced as Forced
    from interp.grading import Scorer as Scorer
    from interp.load import load_model as load_model
    from interp.model import Model as Model
    from interp.model import Trace as Trace
    from interp.patching import Node as Node
    from interp.patching import PatchSweep as PatchSweep
    from interp.paths import CLEAN as CLEAN
    from interp.paths import FOLLOW as FOLLOW
    from interp.paths import STEERED as STEERED
    from interp.paths import BlockPaths as BlockPaths
    from interp.paths import clean as clean
    from interp.paths import steered as steered
    from interp.positions import At as At
    from interp.positions import Positions as Positions
    from interp.positions import at as at
    from interp.prompts import Prompt as Prompt
    from interp.run import Run as Run
    from interp.run import open_run as open_run
    from interp.screening import Screen as Screen
    from interp.screening import screen as screen
    from interp.sites import STREAMS as STREAMS
    from interp.sites import Site as Site
    from interp.store import RunRecord as RunRecord
    from interp.store import Store as Store
    from interp.summaries import Band as Band
    from interp.summaries import Interval as Interval
    from interp.summaries import Verdict as Verdict
    from interp.tasks import load_task as load_task
    from interp.tasks.task import Problem as Problem
    from interp.tasks.task import Task as Task

_HOME = {
    "Add": "interp.edits",
    "AddAdaptive": "interp.edits",
    "At": "interp.positions",
    "Band": "interp.summaries",
    "Batch": "interp.batch",
    "BlockPaths": "interp.paths",
    "CLEAN": "interp.paths",
    "Cell": "interp.cell",
    "Comparison": "interp.comparison",
    "Completions": "interp.completions",
    "Context": "interp.context",
    "Custom": "interp.edits",
    "Declaration": "interp.declaration",
    "Edit": "interp.edits",
    "Evaluation": "interp.evaluation",
    "Experiment": "interp.experiment",
    "FOLLOW": "interp.paths",
    "Forced": "interp.forced",
    "Interval": "interp.summaries",
    "Intervention": "interp.edits",
    "Model": "interp.model",
    "Node": "interp.patching",
    "Patch": "interp.edits",
    "PatchSweep": "interp.patching",
    "Positions": "interp.positions",
    "Problem": "interp.tasks.task",
    "Prompt": "interp.prompts",
    "Run": "interp.run",
    "RunRecord": "interp.store",
    "STEERED": "interp.paths",
    "STREAMS": "interp.sites",
    "Scorer": "interp.grading",
    "Screen": "interp.screening",
    "Site": "interp.sites",
    "Store": "interp.store",
    "Task": "interp.tasks.task",
    "Trace": "interp.model",
    "UserError": "interp.errors",
    "Verdict": "interp.summaries",
    "at": "interp.positions",
    "clean": "interp.paths",
    "compare": "interp.comparison",
    "evaluate": "interp.evaluation",
    "load_model": "interp.load",
    "load_task": "interp.tasks",
    "open_run": "interp.run",
    "per_row": "interp.edits",
    "screen": "interp.screening",
    "steered": "interp.paths",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'interp' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)

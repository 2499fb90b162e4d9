"""Makes the page of the shipped set from its records, so that no number is kept by hand."""

from __future__ import annotations

from collections.abc import Iterable

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from interp.summaries import wilson
from vectors.catalogue import PRETRAINED
from vectors.train.plan import EMBEDDED_MODEL, embedded_plan
from vectors.train.record import BASE, Answers, TrainingRecord, read_records
from vectors.train.result import set_name

N_LAYERS = 30
TITLE = "# The shipped set"
ABOUT = f"""
What ships for `{EMBEDDED_MODEL}`, each set as it was evaluated after training: one completion of each test problem at
temperature 1 and one greedy, with 95 % intervals over problems. Half of the problems take one operation, half take two.
The checkpoint of each was chosen on validation problems; *runs* counts the training runs among which it was chosen.
What learned little is shown as it is. `interp show {EMBEDDED_MODEL}/SET` prints the recipe, every checkpoint that was
tried, and scores by template.

Several of them are controls: a *random* reward is a fair coin, a *format* reward only asks for a box and an end. All
weights do not ship, their answers do. `mean-difference` was never trained: it points from wrong to right completions.
"""
HEAD = ("set", "updates", "completions", "runs", "right at T = 1 (%)", "right, greedy (%)", "n")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add `shipped-set.md`."""
    files.append(File.generated(config, "shipped-set.md", content=page()))
    return files


def page() -> str:
    """The page, as Markdown; sets in the order of the recipe."""
    order = [f"{set_name(one.checked(N_LAYERS), N_LAYERS)}@{one.seed}" for one in embedded_plan()]
    records = {record.name: record for record in read_records(PRETRAINED / EMBEDDED_MODEL)}
    names = [f"{BASE}@0", *(name for name in order if name in records)]
    rows = [HEAD, ["---"] * len(HEAD), *(_row(records[name]) for name in names)]
    return "\n\n".join([TITLE, ABOUT.strip(), "\n".join("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _row(record: TrainingRecord) -> Iterable[str]:
    settings = record.provenance.get("settings")
    steps = str(settings["steps"]) if isinstance(settings, dict) else ""
    counts = [f"{record.rollouts:,}", str(record.trials)] if record.rollouts else ["", ""]
    found = [record.answers[name] for name in ("T=1", "greedy")]
    return f"`{record.name}`", steps, *counts, *map(_percent, found), str(len(found[0].right))


def _percent(answers: Answers) -> str:
    right = wilson(answers.right.count("1"), len(answers.right))
    return f"{100 * right.estimate:.1f} [{100 * right.low:.1f}, {100 * right.high:.1f}]"

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Write a plugin
#
# An experiment is a class with settings, columns, a declaration and a measurement. It gets a key, resumes, is sharded
# and gets a figure like the built-in ones. Here it is written into a file, as a package would hold it.

# %%
from pathlib import Path
from tempfile import mkdtemp

folder = Path(mkdtemp())
source = '''
"""Whether a vector acts on numbers more than on words."""

import pandas as pd

from interp import Batch, Cell, Context, Declaration, Experiment


class NumbersFirst(Experiment):
    """Mean KL on tokens that are digits and on all others."""

    columns = {"example": "problem", "factor": "scale of the vector", "digit": "1 = a digit follows", "kl": "nats"}
    declaration = Declaration(
        estimand="mean KL on digits minus that on other tokens", unit="problem", statistic="difference of means",
        family="factors", controls=("factor 0",), margin=0.01, margin_unit="nats",
    )
    factors: tuple[float, ...] = (0.0, 1.0)
    """Scales of the vector."""

    def cells(self, ctx: Context) -> list[Cell]:
        return [Cell.at(factor=factor) for factor in self.factors]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        problems = ctx.problems()
        said = ctx.completions(ctx.prompts(problems), temperature=0.0)
        batch = Batch.of(ctx.prompts(problems), [row.ids for row in said.rows])
        frames = []
        for cell in cells:
            scores = ctx.model.score(batch, (float(cell["factor"]) * ctx.vectors).edits(), ["kl", "argmax"])
            scores["digit"] = scores["argmax_base"].str.strip().str.isdigit().astype(int)
            means = scores.groupby(["row", "digit"], as_index=False)["kl"].mean()
            frames.append(means.assign(factor=cell["factor"], example=[problems[row].id for row in means["row"]]))
        return pd.concat(frames)[list(self.columns)]
'''
(folder / "numbers_first.py").write_text(source)
# %% [markdown]
# `path/to/file.py:Name` works wherever a name does, on the command line too. In a package, one line of metadata makes
# it a name that every command knows: `numbers-first = "my_package.numbers_first:NumbersFirst"` under
# `[project.entry-points."interp.experiments"]`.

# %%
from interp import load_model, load_task
from interp.registry import load
from vectors import load_vectors

NumbersFirst = load("experiments", f"{folder / 'numbers_first.py'}:NumbersFirst")
run = NumbersFirst(n=8, factors=(0.0, 0.5, 1.0)).run(
    load_model("smollm2-135m-instruct"),
    load_vectors("smollm2-135m-instruct/all-layer"),
    load_task("word-problems"),
    out=folder / "runs",
    progress=False,
)
run.frame.groupby(["factor", "digit"])["kl"].mean().unstack()

# %%
run.figure()

# %% [markdown]
# Asked for again, the run is read from disk; a recipe says how it was made.

# %%
print(run.recipe())

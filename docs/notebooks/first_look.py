# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first look in five minutes
#
# A steering vector is one direction, added to the residual stream at every token. This notebook loads a small chat
# model and vectors that were trained for it with reinforcement learning, looks at what they do to one answer, measures
# what they do to many, and draws the first figure.

# %%
from interp import Batch, compare, load_model, load_task
from vectors import load_vectors

model = load_model("smollm2-135m-instruct")
model

# %%
v = load_vectors("smollm2-135m-instruct/all-layer")
v

# %% [markdown]
# `compare` completes the same prompt under several interventions. The darker a token, the further the vectors moved the
# prediction that it was drawn from, in nats of KL.

# %%
task = load_task("word-problems")
problem = task.problems("test")[0]
compare(model, task.prompt(model.tokenizer, problem), {"base": None, "v": v, "2v": 2 * v, "-v": -v})

# %% [markdown]
# Nothing stays switched on: edits are values that a call takes. Here they are read on the steered model's own
# completions, token by token. Position 0 is the last token of the prompt, which predicts the first one of the answer.

# %%
prompts = [task.prompt(model.tokenizer, one) for one in task.problems("test")[:8]]
said = model.generate(prompts, v.edits(), temperature=0, max_new_tokens=task.max_new_tokens)
batch = Batch.of(prompts, [row.ids for row in said.rows])
scores = model.score(batch, v.edits(), ["kl", "entropy", "argmax"])
scores.head(12)

# %%
scores.groupby("phase")[["kl", "entropy_base", "entropy_steered"]].mean()

# %% [markdown]
# An experiment does this for a set of problems, beside control vectors, with intervals over problems and a verdict. At
# scale "smoke" it takes seconds and decides nothing; "quick" is the default.

# %%
from experiments import LogitLens

run = LogitLens.at("smoke").run(model, v.only((0, 15, 29)), task, progress=False)
run

# %%
run.figure()

# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Patch a path and read it
#
# A vector added below a block reaches the block's output through its queries, keys and values, through the MLP, and
# through the stream that passes by. `BlockPaths` says for each of these paths whether it sees the vector (STEERED) or
# not (CLEAN); what follows the attention can FOLLOW the patched heads.

# %%
import pandas as pd

from interp import CLEAN, STEERED, Batch, BlockPaths, load_model, load_task
from vectors import load_vectors

model = load_model("smollm2-135m-instruct")
task = load_task("word-problems")
v = load_vectors("smollm2-135m-instruct/single-layer/28")

problems = task.problems("test")[:8]
prompts = [task.prompt(model.tokenizer, problem) for problem in problems]
said = model.generate(prompts, temperature=0, max_new_tokens=task.max_new_tokens)
batch = Batch.of(prompts, [row.ids for row in said.rows])

# %% [markdown]
# The vector of block 28 enters block 29, the last one. Four patches of that block:

# %%
patches = {
    "all steered": BlockPaths(),
    "attention clean": BlockPaths(q=CLEAN, k=CLEAN, v=CLEAN),
    "MLP clean": BlockPaths(resid_to_mlp=CLEAN, attn_to_mlp=CLEAN),
    "only past the block": BlockPaths(q=CLEAN, k=CLEAN, v=CLEAN, resid_to_mlp=CLEAN),
}
patches["attention clean"].at(29).describe()

# %%
frames = [
    model.score(batch, [*v.edits(), patch.at(29)], ["kl", "tv"]).assign(patch=name) for name, patch in patches.items()
]
scores = pd.concat(frames)
scores.groupby("patch", sort=False)[["kl", "tv"]].mean()

# %% [markdown]
# Two identities hold exactly: with every path STEERED the block computes what it computes under the vector, and with
# every path CLEAN what it computes without.

# %%
steered = model.score(batch, v.edits(), ["kl"])["kl"]
same = model.score(batch, [*v.edits(), BlockPaths().at(29)], ["kl"])["kl"]
clean = BlockPaths(q=CLEAN, k=CLEAN, v=CLEAN, z=CLEAN, resid_to_mlp=CLEAN, resid=CLEAN)
none = model.score(batch, [*v.edits(), clean.at(29)], ["kl"])["kl"]
float((steered - same).abs().max()), float(none.abs().max())

# %% [markdown]
# A patch works in generation too, with caches, and each row of a batch may have its own. The experiment `PathPatching`
# does this for named patches, heads and slices, beside random vectors, and adds the full factorial of six paths:
# `interp run path-patching --factorial`.

# %%
head = BlockPaths(z=STEERED, resid=CLEAN, resid_to_mlp=CLEAN).at(29)
model.generate(prompts[:2], [*v.edits(), head], temperature=0, max_new_tokens=24).texts

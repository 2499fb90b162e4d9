"""Captions and verdicts in plain words, made from a run's own record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from figures.record import Record
from figures.style import written
from interp.active_edits import active_vectors

CAPTIONS: Mapping[str, str] = {
    "feature-correctness": "Each row is a feature of the change that the vectors make, by its score on the problems it "
    "was chosen on; drawn is what it says on other problems: accuracy where it fires, before the answer, more than in "
    "the median completion of the problem less accuracy where it does not, with length, end and box held fixed (left), "
    "and the unadjusted odds ratio (right). Bars: 95 % intervals over problems; p: against the largest score of all "
    "features under labels permuted within problem.",
    "feature-correctness-ablation": "Accuracy of the base, under the vectors, under them with the chosen feature taken "
    "out at every position of the completion, h - f(\u0394) d with the base stream in lockstep, and with random "
    "features of the same firing rate taken out. Bars: 95 % intervals over problems.",
    "feature-correctness-examples": "Tokens before the answer of the completions in which the reported features fire "
    "most; colour: the feature's activation where the token is predicted.",
    "sae-attribution": "A point is a feature in one text: its attribution (gradient times activation, gates held "
    "fixed, summed over the completion) against the change of the KL when it is taken out. Crosses: random directions "
    "of the same size. Dashed: equality. Principal components keep as many coefficients of each token.",
    "sae-attribution-nodes": "Sum of attributions over features, error (what the dictionary leaves out) and bias, and "
    "what taking each out does; the whole change is all three. Mean over problems with 95 % intervals.",
    "sae-attribution-vector": "Of each block's vector that enters the change: its largest cosine with a decoder "
    "direction and the largest rise of a feature when it alone is encoded. Grey: random vectors of the same norm.",
    "learning-curve": "Dots: one batch of completions; lines: their running mean. Diamonds: greedy accuracy on "
    "validation problems with 95 % intervals; the checkpoint with the highest is kept. Norms in units of the residual "
    "stream.",
    "match-full-tuning": "Left, accuracy of each kind of trained set, seeds averaged within a problem; marks: single "
    "training seeds. Right, the difference from training all weights; a set matches where its interval stays above -5 "
    "points. Bars: 95 % intervals over problems.",
    "match-full-tuning-mechanism": "Left, divergence of the fully tuned model from each set per token on fixed texts "
    "of the base, for sets that were there when all weights were trained. Middle, cosine of what the last "
    "hidden state gains; grey: random vectors. Right, problems that "
    "training repairs, shared with full tuning; grey: the range when they fall on random problems of the same "
    "template.",
    "adaptive-scaling": "Above, the coefficient c of each layer's adapter at each token of one problem, in units of "
    "the median norm of the MLP's output, symmetric-log colours; the first token of the row is left out. Below, c "
    "against the cosine of the MLP's own output with the direction that is written, tokens of all problems.",
    "adaptive-scaling-tokens": "The tokens of one problem on the colour of c, a new line for each part of the prompt.",
    "adaptive-scaling-words": "Left, |c| of each kind of word over the mean of the problem's words. Right, the "
    "contrast of content words (numbers, asked quantity, names) and function words. Bars: 95 % intervals over "
    "problems; grey marks: random reading directions on the same activations, and the adapter's own values on shuffled "
    "words.",
    "adaptive-scaling-causal": "Accuracy with the adapter nowhere, everywhere, everywhere at its mean strength, off on "
    "a part of the prompt, and off on equally many random tokens outside of it. Bars: 95 % intervals over problems.",
    "accuracy-by-layer": "Accuracy with only the vector of one block on. Band: 95 %, over all blocks at once. Grey: "
    "random vectors of the same norm, one mark a draw; blue: -s and permuted coordinates at the block that was chosen "
    "on other problems. Rings: blocks that differ from random draws, adjusted over blocks. Right: what the base "
    "reaches without a vector, with 95 % intervals.",
    "accuracy-by-layer-beside": "What must stand beside an accuracy: answers in a box, ended completions, accuracy "
    "among the boxed, length and entropy. A vector may only teach the format, or only sharpen.",
    "composition": "Accuracy with the vectors of two blocks on, minus each alone, plus the base; 0 where they add up. "
    "Stars: pairs that differ from 0, adjusted over pairs. Intervals are under the pointer and in the next figure.",
    "composition-controls": "Left, the interaction of each pair; middle, its accuracy minus that of the better of its "
    "vectors at the best factor, both chosen on one half of the problems and reported on the other; right, minus that "
    "of the lower vector with a random partner. Bars: 95 % intervals over problems; grey marks: random partners.",
    "logit-lens": "Each row is a layer; the tokens that its vector promotes most stand left, those it suppresses most "
    "right. Colour: score of the token, white = 0. The menu changes the lens and shows the effect after the last block "
    "instead of the vector itself. Of a rank-1 adapter, the mean that it adds to generated tokens stands for the "
    "vector.",
    "logit-lens-scripts": "Probability that a token of the script scores above a Latin token of similar norm and "
    "frequency, over the whole vocabulary. Bands in colour: 95 % over problems, for each layer alone. Grey: the "
    "range of random directions, simultaneous over layers. Dashed: no shift.",
    "logit-lens-classes": "Change of each token class when the vector is on, mean over problems with 95 % intervals; "
    "grey marks are control vectors, one a draw. A probability can move only where the base is undecided, hence the "
    "log-odds beside it.",
    "persistence": "Row: the block l whose vector is on, alone (also where the vectors were trained together); column: "
    "a later block k. Self: cosine of each token's change with the vector itself (with what a rank-1 adapter adds at "
    "that token); Induced: agreement between a problem's tokens of what the network adds to it; Diff-Vector: cosine "
    "with the vector that was trained at k, which is high too where the vectors of neighbours are alike. Below, minus "
    "the mean of random vectors, for the blocks that have them. Mean over generated tokens, then problems.",
    "persistence-controls": "Each panel: one steered block. Orange: the vector, 95 % intervals over problems for each "
    "block alone; grey: from the lowest to the highest mean of a random vector of the same norm.",
    "persistence-final": "Cosines of the mean changes that vectors of different blocks make after the last block, over "
    "generated tokens. Right: their mean over the blocks that have random vectors, on the problems that those were "
    "read on; interval over problems, grey: one mark a draw.",
    "persistence-paper": "As in the paper, without controls. In Diff-Diff each token is part of the mean that it is "
    "compared with, so that unrelated changes seem to agree; random vectors have nearly the same matrix.",
    "prefix-substitution": "Accuracy gained over the base by the vector, by writing the token that it raises most "
    "before the completion (chosen on training problems), and by writing each of the base's likeliest first tokens. "
    "Bars: 95 % intervals, paired by problem; grey marks: tokens that control vectors chose likewise, one a draw.",
    "effect-against-cost": "Up: accuracy gained on the task; right: mean KL to the base of a token of neutral text. "
    "Each curve is one set at several doses; grey: random directions, one mark a draw and dose. Bars: 95 % intervals "
    "over problems and texts. A set further up and left gains more for what it changes elsewhere.",
    "gain-ladder": "Accuracy, from the base through what may explain a gain without a vector trained for right answers "
    "(sharper sampling, worked examples, one written token, the first position alone, other rewards) to trained "
    "vectors and adapters. Dots: training seeds or random draws; bars: 95 % intervals over problems.",
    "magnitude": "Accuracy and KL at multiples of the vector, 1 being the scale it was trained to. Grey: random "
    "vectors of its norm at the same multiples, another one for each problem, and at 1 each draw on all problems as a "
    "mark. Bars: 95 % intervals over problems. Middle: what the base reaches without a vector.",
    "magnitude-beside": "What must stand beside an accuracy, at each multiple of the vector. A large multiple may "
    "raise the share of boxed answers and break the rest.",
    "path-patching": "The next block computes with the vector on some of its paths only, on the same tokens. Bars: "
    "share of the distance between steered and base that is kept, with 95 % intervals over problems; circles: control "
    "vectors under the same patch, one a draw. What a vector adds to the last block's stream is unembedded as it is, "
    "so any vector keeps much without attention.",
    "path-patching-accuracy": "Accuracy with the patch on in every token, prompt and completion, caches included. "
    "Grey: the base, the base at the steered model\u2019s entropy and with worked examples, and control vectors, one a "
    "problem in turn. Bars: 95 % intervals.",
    "path-patching-attention": "Total variation between the attention rows without and with the vector, by head. Many "
    "heads rest on the first token, which hides what the others do: without it, rows are renormalised. Bars: 95 % "
    "intervals over problems; grey marks are control vectors, one a draw.",
    "path-patching-factorial": "Each of 64 coalitions of paths sees the vector, the others do not. Left, what a path "
    "recovers alone; right, what it adds as the last one; middle, the mean of what it adds over all orders (Shapley "
    "value), which sum to the whole. Bars: 95 % intervals over problems; grey marks are control vectors, one a draw.",
    "path-patching-heads": "skip: what is lost where one head, or its queries, keys or values, does not see the "
    "vector; only: what is added where, of all attention, it alone does. In the rows named random, the mean of control "
    "vectors of the same effect; a star marks heads whose 95 % interval leaves all of their draws.",
    "path-patching-interactions": "Shapley interaction index of each pair of paths: above 0 they recover more together "
    "than apart, below 0 they stand in for each other.",
    "side-effects": "Left, mean KL to the base of a token of neutral text against that of a token of the task's text, "
    "for the vectors at each dose and for control vectors at dose 1; on the dashed line both are moved alike. Right, "
    "the logarithm of their ratio: further right is more confined to the task. Bars: 95 % intervals over texts and "
    "problems; compare with controls of equal effect on the task.",
    "side-effects-answers": "Left, problems that the base had wrong and that are now right (up), and the reverse "
    "(down), with the exact p of as many broken as fixed (McNemar). Right, answers to questions that are not the "
    "task's: the longest run of tokens that occurs twice, change against the base. Bars: 95 % intervals, paired by "
    "question.",
    "placement": "Orange: accuracy with a vector trained and added at that place of the block. Grey: random vectors of "
    "its norm at the same place, another one for each problem. Bars: 95 % intervals over problems. A place without a "
    "trained vector stays empty.",
    "self-explanation": "How far the next-token distribution after a vector lies from that after random vectors in the "
    "same place, with the tokens that gain most. Grey: each random vector against the others. The title says how many "
    "known words the model repeats from there: where few are, what it says of a vector means nothing.",
    "token-substitution": "Left, mean change of a token's probability; middle, change of its log-odds; right, its "
    "share of the total variation. Tokens were chosen on one half of the problems and are measured on the other. Bars: "
    "95 % intervals over problems; grey marks are control vectors, one a draw, in the last row for the token that each "
    "control itself raises or lowers most.",
    "token-substitution-causal": "Accuracy with the vector added nowhere, only at the last prompt position (which "
    "predicts the first generated token), everywhere but there, and everywhere. Bars: 95 % intervals over problems; "
    "circles: control vectors at the same positions.",
    "token-substitution-paper": "As in the paper: at each position the token whose probability rises most, grouped by "
    "token; in orange the chosen token at position 0. Selected by maximum, so every box is above zero for any vector, "
    "random ones included. Boxes: quartiles; beyond 2,000 points only outliers are drawn as points.",
    "transfer": "Points of accuracy that each recipient gains with each donor's vectors: the same model under other "
    "prompts or with an adapter on, or another model of the same shape. Bars: 95 % intervals, paired by problem; grey "
    "marks: control sets, one a draw. A set of several single-layer vectors is on together.",
    "transfer-table": "The same as numbers. The share is of the gain that the recipient's own vectors give (for "
    "another prompt: that the vectors give under their own), shown where the lower bound of the latter is at least 5 "
    "points.",
    "vector-geometry": "Left, the norm of each vector over the median norm of the stream that it is added to (first "
    "token and template left out). Right, cosines between the vectors of two blocks; the stable rank counts the "
    "directions that they span, beside random rows (95 % of draws). Of a rank-1 adapter, the mean that it adds to "
    "generated tokens stands for the vector.",
    "vector-geometry-sets": "Cosine of each block's vector with that of another set. Grey: what random directions "
    "reach with 95 % probability at a single block; those with the stream's covariance share its few large directions "
    "and reach further.",
}


_ENDS = (("low", -1), ("high", 1))


def caption(name: str, run: Record) -> str:
    """Return the caption of a figure: what is drawn, then model, vectors, n and controls."""
    plan = run.meta.get("declaration") or {}
    controls = ", ".join(str(control) for control in plan.get("controls") or ())
    open_ended = "Where outcomes or draws are equal an interval has no end and is not drawn." if _unbounded(run) else ""
    parts = [CAPTIONS.get(name, ""), open_ended, f"{subject(run)}.", f"Controls: {controls}." if controls else ""]
    return " ".join(part for part in parts if part)


def subject(run: Record) -> str:
    """Return model, what was on, task, n and scale of a run in one phrase."""
    on = active_vectors(run.meta)
    named = [("", _name(run.meta.get("model"))), ("vectors ", on), ("task ", _name(run.meta.get("task")))]
    parts = [f"{prefix}{name}" for prefix, name in named if name]
    n, scale = run.meta.get("n"), run.meta.get("scale")
    parts += [f"n = {n} problems"] if n is not None else []
    parts += [f"scale {scale}"] if scale else []
    return ", ".join(parts)


def _unbounded(run: Record) -> bool:
    """Whether an interval of a run has an infinite end."""
    ends = run.frame.filter(regex=r"(^|_)(low|high)$").select_dtypes("float")
    return bool(np.isinf(ends.to_numpy()).any())


def interval(value: Mapping[str, Any] | None) -> str:
    """Return an estimate with its 95 % interval, or an en dash where there is none."""
    if not value or value.get("estimate") is None:
        return "\u2013"
    estimate = _short(value["estimate"])
    if not {"low", "high"} <= set(value):
        return estimate
    # JSON has no infinity, so that run.json holds null for an end that is unbounded
    ends = (math.copysign(math.inf, sign) if value[end] is None else value[end] for end, sign in _ENDS)
    return "{} [{}, {}]".format(estimate, *map(_short, ends))


def sentence(verdict: Mapping[str, Any]) -> str:
    """Return a verdict in words, with everything it was made from."""
    said = [f"{_words(verdict.get('claim'))}: {verdict.get('phrase')}"]
    if verdict.get("estimate"):
        said.append(f"estimate {interval(verdict['estimate'])}")
    if verdict.get("control"):
        said.append(f"controls {interval(verdict['control'])}")
    if verdict.get("margin") is not None:
        said.append(f"smallest effect of interest {_short(verdict['margin'])}")
    if verdict.get("detectable") is not None:
        said.append(f"smallest detectable effect {_short(verdict['detectable'])}")
    because = str(verdict.get("because") or "").strip().rstrip(".")
    because = "" if because in str(verdict.get("phrase")) else because  # "not testable here, because ..." says it
    return "; ".join(said) + "." + (f" {because[:1].upper()}{because[1:]}." if because else "")


def tone(phrase: str) -> str:
    """Return the class of a verdict's phrase, for its look."""
    known = {"same direction": "same", "opposite": "opposite", "no effect": "none", "not testable": "untested"}
    return next((look for start, look in known.items() if phrase.startswith(start)), "open")


def _words(claim: object) -> str:
    spoken = str(claim or "").replace("-", " ").strip()
    return spoken[:1].upper() + spoken[1:]


def _short(number: object) -> str:
    if not isinstance(number, int | float) or math.isnan(number):
        return "?"
    return written(number, "z.3g")


def _name(value: object) -> str:
    return str(value.get("name") or "") if isinstance(value, Mapping) else str(value or "")

"""What each entry of the manifest asks of the model, counted from its settings: the formulas behind `--dry-run`.

They follow the experiments' own loops; a test compares them with what is counted while the experiments run. Completions
that two entries share are counted in both, because either may be made alone.
"""

from __future__ import annotations

from typing import Any

from interp.costs import Subject, Work

MATCHING = 9
"""Passes until a random direction has the vector's effect: bracketing by doubling, then a root search."""
FEATURES = 400
"""Features that are active somewhere in a completion, where all of them are taken out one by one."""
REFERENCES = 4
"""The base at the steered model's entropy, and 1, 3 and 5 worked examples."""
PATHS = 2**6
SHARED_FIRST = 0.5
"""Of completions that differ in the first token's vector alone, the share whose first token differs."""


HALF = 0.5
"""Mean share of the blocks that lie above a block, over all blocks."""


def accuracy_by_layer(x: Any, s: Subject) -> Work:
    """Each block's vector, random ones at some blocks, the chosen block's other controls."""
    blocks, controlled = s.some(x.blocks), min(s.some(x.control_blocks), s.some(x.blocks))
    random = len(x.controls) * x.draws
    late = x.permuted_draws + 1 + (random if x.mixed or controlled < blocks else 0)
    conditions = 1 + blocks + controlled * (len(x.controls) if x.mixed else random) + late + s.beside(x.beside)
    made = _sampled(x, s, conditions, chosen_from=blocks)
    return made + _controls(x.controls, x.draws, x.train_n, s) * controlled


def persistence(x: Any, s: Subject) -> Work:
    """Every block's vector over the same texts; where not all streams fit, the base again for each block."""
    blocks = min(s.some(x.blocks), s.layers - 1)
    controlled = min(x.control_blocks or blocks, blocks)
    random = _kinds(x.controls, x.draws) * min(x.control_n, x.n)
    made = s.force(blocks * x.n * (1 + HALF) + controlled * random * HALF, at_once=x.n) * len(x.texts)
    steered = s.complete(x.n * blocks) if "steered" in x.texts else Work()
    return s.complete(x.n) + steered + made + _controls(x.controls, x.draws, x.train_n, s) * controlled


def token_substitution(x: Any, s: Subject) -> Work:
    """The last block's vector needs no pass of its own; its completions share what must be equal."""
    made = s.texts(x.n) + _controls(x.controls, x.draws, x.train_n, s, above=0.0)
    conditions = 2 + SHARED_FIRST * (2 + x.causal_draws)
    return made + _graded(x, s, conditions + 1) + s.texts(min(32, x.n))


def logit_lens(x: Any, s: Subject) -> Work:
    """Each block's vector over the same texts, controls in the middle and at the last block, tuned lenses."""
    blocks = s.some(x.blocks)
    controlled = min(x.control_blocks + 1, blocks) if x.control_blocks else 0
    forced = blocks * HALF + controlled * _kinds(x.controls, x.draws) * HALF
    lenses = s.texts(x.train_n) if x.tuned != "no" else Work()
    return s.texts(x.n) + s.force(x.n * forced) + lenses + _controls(x.controls, x.draws, x.train_n, s) * controlled


def path_patching(x: Any, s: Subject) -> Work:
    """Every patch runs one block; the blocks above the penultimate are one."""
    block, random = 1 / s.layers, len(x.controls) * x.draws
    swept = sum(2 * (s.kv_heads if name[-1] in "kv" else s.heads) for name in x.sweep) / 2
    own = len(x.patches) + PATHS * x.factorial + swept + 2 * x.attention
    control = random * (len(x.patches) + PATHS * x.factorial) + x.draws * (swept + 2 * x.attention)
    passes = own * x.n + control * min(x.control_n, x.n)
    read = (s.texts(x.n) + s.force(passes * block)) * len(x.text)
    conditions = 1 + len(x.generated) + ("skip-attn" in x.generated) + REFERENCES * x.references
    graded = _graded(x, s, conditions) if x.generated else Work()
    return read + graded + _controls(x.controls, x.draws, x.train_n, s, above=block)


def feature_correctness(x: Any, s: Subject) -> Work:
    """Completions of two halves of problems, run with and without vectors; then generation in lockstep."""
    said = 2 * x.associate_n * x.samples
    ablated = x.n * x.ablation_samples
    lockstep = s.complete(ablated * (1 + x.draws)) + Work(decoded=ablated * (1 + x.draws) * s.length)
    return s.complete(said) + s.force(2 * said) + s.complete(2 * ablated) + lockstep


def sae_attribution(x: Any, s: Subject) -> Work:
    """Each text runs again for each feature that is taken out, from its block on."""
    most = (x.at_most or FEATURES) + (x.beside_at_most or FEATURES)
    return s.texts(x.n + x.train_n) + s.force(x.n * most * HALF)


def adaptive_scaling(x: Any, s: Subject) -> Work:
    """One pass reads every block; then the adapter at its mean, and off on parts of the prompt."""
    conditions = 3 + len(x.parts) * (1 + x.random_sets)
    return (s.complete(x.n + x.train_n) + s.force(2 * (x.n + x.train_n), at_once=x.n)) + _graded(x, s, conditions)


def composition(x: Any, s: Subject) -> Work:
    """Single vectors at each factor, pairs, and either with random partners."""
    blocks = s.some(x.blocks)
    pairs, random = blocks * (blocks - 1) // 2, 1 if x.mixed else x.draws
    conditions = 1 + blocks * (len({*x.factors, 1.0}) + random) + pairs * (1 + random) + s.beside(x.beside)
    return _sampled(x, s, conditions, chosen_from=0)


def transfer(x: Any, s: Subject) -> Work:
    """Every recipient with every donor, and with every random set."""
    prompts = [name for name in x.recipients if name in ("task-prompt", "other-system-line", "no-example")]
    recipients = len(prompts) + s.beside([name for name in x.recipients if name not in prompts])
    conditions = recipients * (2 + s.beside(x.donors) + len(x.controls) * x.draws)
    found = (conditions + REFERENCES * x.few_shot) * x.n * x.samples
    return s.complete(found) + s.texts(min(32, x.n)) + _controls(x.controls, x.draws, x.matched_n, s)


def prefix_substitution(x: Any, s: Subject) -> Work:
    """Each distinct token that the vector, the base or a control chooses; half of the controls choose a new one."""
    tokens = 1 + x.openers + SHARED_FIRST * _kinds(x.controls, x.draws)
    made = _graded(x, s, 2 + tokens + REFERENCES * x.few_shot)
    return made + _controls(x.controls, x.draws, x.matched_n, s, above=0.0) + Work(forced=x.train_n * s.prompt)


def placement(x: Any, s: Subject) -> Work:
    """Each place that has a trained vector, with random ones; the best place is chosen on other problems."""
    places = 1 + len(x.sets)
    return _sampled(x, s, 1 + places * (1 + (1 if x.mixed else x.draws)) + s.beside(x.beside), chosen_from=places)


def magnitude(x: Any, s: Subject) -> Work:
    """Each factor with random vectors; the factor is chosen on other problems."""
    factors = len({*x.factors, 1.0})
    random = (factors - 1) * (1 if x.mixed else x.draws) + x.draws
    choosing = factors + (0 if "all-layer" in s.sets else s.some(x.blocks))
    made = _sampled(x, s, 1 + factors + random + s.beside(x.beside), chosen_from=choosing)
    read = factors * (1 + x.kl_draws) * min(x.texts_n, x.n) * HALF
    return made + s.texts(min(x.texts_n, x.n)) + s.force(read)


def match_full_tuning(x: Any, s: Subject) -> Work:
    """Answers on record cost nothing; without any, the base and the sets that come with the model are asked."""
    live = 0 if s.evaluated else len(x.live_temperatures) * (1 + s.beside(x.kinds))
    changes = x.texts * (1 + s.beside(x.kinds) + x.draws) if s.evaluated else 0
    return s.complete(x.n * live) + s.force(changes)


def gain_ladder(x: Any, s: Subject) -> Work:
    """One condition a rung; the single layer is chosen on other problems."""
    conditions = 5 + s.beside((*x.beside, *x.seeds)) + x.draws
    return _sampled(x, s, conditions, chosen_from=s.some(x.blocks)) + Work(forced=x.train_n * s.prompt)


def side_effects(x: Any, s: Subject) -> Work:
    """Doses and controls over neutral text and the task's, then over questions and problems."""
    read = len(x.doses) + _kinds(x.controls, x.draws)
    neutral = Work(forced=x.n_texts * x.length * (1 + read))
    task = s.texts(min(x.task_n, x.n)) + s.force(min(x.task_n, x.n) * read)
    generated = 1 + len(x.doses) + x.generated_draws
    asked = s.complete(x.n_questions * generated, x.answer_tokens)
    graded = s.complete(x.n * (generated + REFERENCES * x.few_shot))
    return neutral + task + asked + graded + _controls(x.controls, x.draws, x.matched_n, s, above=1.0)


def vector_geometry(x: Any, s: Subject) -> Work:
    """The stream's own covariance, and the model's right and wrong completions for the baselines."""
    baseline = x.train_n * x.samples
    return s.texts(x.n) + s.complete(baseline) + s.force(baseline * len(x.baselines))


def effect_against_cost(x: Any, s: Subject) -> Work:
    """Every dose of every set, graded and over neutral text."""
    doses = (1 + s.beside(x.beside)) * len(x.doses) + x.draws * len(x.random_doses)
    neutral = Work(forced=x.n_texts * x.length * (1 + doses))
    return s.complete((1 + doses) * x.n * x.samples) + neutral


def _graded(x: Any, s: Subject, conditions: float) -> Work:
    """Conditions completed at each temperature; greedy needs one sample."""
    return s.complete(conditions * x.n * sum(x.samples if t else 1 for t in x.temperatures))


def _sampled(x: Any, s: Subject, conditions: float, *, chosen_from: int) -> Work:
    """A sweep: conditions, what something is chosen from, and the references where sampled."""
    sampled = sum(t > 0 for t in x.temperatures)
    choosing = chosen_from * x.validation_n * sum(x.samples if t else 1 for t in x.temperatures)
    references = s.complete(REFERENCES * x.n * x.samples * sampled) + s.texts(min(32, x.n))
    return _graded(x, s, conditions) + s.complete(choosing) + references


def _kinds(kinds: tuple[str, ...], draws: int) -> int:
    """Draws of some kinds of control; there is one negative and one of each other block's."""
    return sum(1 if kind in ("negated", "other-layers") else draws for kind in kinds)


def _controls(kinds: tuple[str, ...], draws: int, train_n: int, s: Subject, above: float = HALF) -> Work:
    """Training texts for the covariance and for equal effect; passes until the effect is equal."""
    matched = any("effect-matched" in kind for kind in kinds)
    if not matched and not any("covariance" in kind for kind in kinds):
        return Work()
    search = s.force(train_n * draws * MATCHING * above) if matched else Work()
    return s.texts(train_n) + search

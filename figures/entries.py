"""The manifest: what each figure and table of the paper claims and how this workbench tests it.

Numbers and claims are those of "Small Vectors, Big Effects" (arXiv:2509.06608 v3) as far as its abstract, public
reviews and its authors' public code tell; what the last version (v4) kept, as far as its abstract tells. The thresholds
were written before any run. Where one experiment draws several of the paper's figures, they are one entry.
"""

from __future__ import annotations

from figures import published as p
from figures import work
from figures.entry import Entry

_POINTS = "accuracy points; the 95 % interval, paired by problem, must clear the margin and the control vectors"

ENTRIES: tuple[Entry, ...] = (
    Entry(
        key="1",
        kept="unknown",
        covers=("1", "9", "10", "11"),
        title="Accuracy by layer",
        claim="One trained vector in one layer recovers much of the gain of vectors in all layers.",
        measures="accuracy with only the vector of one layer on, beside base, all layers, prefix and control vectors",
        threshold=f"5 {_POINTS}",
        margin=5.0,
        experiment="accuracy-by-layer",
        work=work.accuracy_by_layer,
        figures=("accuracy-by-layer", "accuracy-by-layer-beside"),
        published=(*p.BASES, *p.LAST, *p.PENULTIMATE, *p.ALL_LAYERS),
    ),
    Entry(
        key="2",
        kept="unknown",
        covers=("2", "14", "18"),
        title="Persistence through the layers",
        claim="The change that a vector makes keeps its direction through the later layers.",
        measures="cosines of the change of the residual stream between layers, minus those of random vectors; cosines "
        "between the effects of different layers after the last one",
        threshold="0.1 in cosine above random vectors, which have the plain statistic too; 95 % interval over problems",
        margin=0.1,
        experiment="persistence",
        work=work.persistence,
        figures=("persistence", "persistence-controls", "persistence-final", "persistence-paper"),
    ),
    Entry(
        key="3",
        kept="yes",
        covers=("3", "19"),
        title="The last layer's vector as token substitution",
        claim='The last layer\'s vector acts like replacing the first generated token, such as by "To" or "Step".',
        measures="the change of every token's probability at each position, the share that one token carries, and "
        "accuracy with the vector only where the first token is predicted",
        threshold="one token carries 0.1 more of the total variation than under control vectors; accuracy with the "
        "vector only there within 5 points of accuracy with it everywhere, and 5 points above the base; 95 % intervals",
        margin=5.0,
        experiment="token-substitution",
        work=work.token_substitution,
        figures=("token-substitution", "token-substitution-causal", "token-substitution-paper"),
        published=(*p.BASES, *p.PREFIXES, *p.LAST),
    ),
    Entry(
        key="4",
        kept="in part",
        covers=("4", "15", "16", "17"),
        title="Logit lens of the vectors",
        claim="Middle layers push down non-English tokens; late layers promote process words and structure symbols.",
        measures="scores of the whole vocabulary under each vector: rank statistic of each script against Latin tokens "
        "matched on norm and frequency, and the change of each token class",
        threshold="0.1 in AUC below 0.5 and outside the range of random directions over all layers; token classes: "
        "0.1 nats of log-odds, 95 % interval over problems, outside the control vectors",
        margin=0.1,
        experiment="logit-lens",
        work=work.logit_lens,
        figures=("logit-lens", "logit-lens-scripts", "logit-lens-classes"),
    ),
    Entry(
        key="5",
        kept="yes",
        covers=("5", "6", "20", "21"),
        title="Paths by which a vector acts",
        claim="The penultimate layer's vector acts through the MLP and the unembedding and leaves attention largely "
        "intact.",
        measures="accuracy and KL with single paths into the next block patched, Shapley shares of all six paths, and "
        "the total variation of attention rows; random vectors beside",
        threshold="share of KL through attention 0.1 or more below that of random vectors; attention rows: 0.05 in "
        "total variation; gain without attention: 5 points; 95 % intervals over problems",
        margin=0.1,
        experiment="path-patching",
        work=work.path_patching,
        figures=(
            "path-patching",
            "path-patching-factorial",
            "path-patching-interactions",
            "path-patching-attention",
            "path-patching-heads",
            "path-patching-accuracy",
        ),
        published=p.PATHS,
    ),
    Entry(
        key="7",
        kept="no",
        covers=("7", "8"),
        title="Sparse features of the change",
        claim="Features of a sparse autoencoder on the change mark correct completions.",
        measures="firing rate against correctness, stratified by problem, on held-out problems; then accuracy with the "
        "feature removed, beside random features of the same rate",
        threshold=f"5 {_POINTS}",
        margin=5.0,
        experiment="feature-correctness",
        work=work.feature_correctness,
        figures=("feature-correctness", "feature-correctness-ablation", "feature-correctness-examples"),
    ),
    Entry(
        key="sae-attribution",
        kept="ours",
        title="Attribution to sparse features",
        claim="Sparse features of the change carry the vector's effect.",
        measures="gradient times activation of each feature, error node apart, against taking the feature out; "
        "principal components at the same number of active features beside",
        threshold="rank correlation of attribution and ablation 0.5 and above shuffled ones; explained variance 0.05 "
        "above principal components; 95 % intervals over problems",
        margin=0.5,
        experiment="sae-attribution",
        work=work.sae_attribution,
        figures=("sae-attribution", "sae-attribution-nodes", "sae-attribution-vector"),
    ),
    Entry(
        key="12",
        kept="no",
        covers=("12",),
        inferred=True,
        title="Adaptive scaling",
        claim="The magnitude of a token-wise scaled vector sits on meaningful segments of prompt and completion.",
        measures="the coefficient of a rank-1 adapter at each token by kind of word, against a random direction and "
        "shuffled tokens; then accuracy with it held at its mean",
        threshold=f"0.1 in the contrast of content and function words, in [-1, 1], outside random directions and "
        f"shuffled words; then 5 {_POINTS}",
        margin=5.0,
        experiment="adaptive-scaling",
        work=work.adaptive_scaling,
        figures=("adaptive-scaling-words", "adaptive-scaling", "adaptive-scaling-tokens", "adaptive-scaling-causal"),
    ),
    Entry(
        key="13",
        kept="no",
        covers=("13",),
        title="Composition of vectors",
        claim="Vectors trained apart add up when two of them are switched on.",
        measures="interaction A_ij - A_i - A_j + A_0 of every pair, beside the better one at its best scale and random "
        "partners",
        threshold=f"5 {_POINTS}",
        margin=5.0,
        experiment="composition",
        work=work.composition,
        figures=("composition", "composition-controls"),
        published=p.ALL_LAYERS,
    ),
    Entry(
        key="table-1",
        kept="yes",
        covers=("table-1",),
        title="Transfer to other models",
        claim="Vectors trained on one model help another model of the same shape.",
        measures="points gained by a recipient with a donor's vectors, beside its own vectors and random ones",
        threshold=f"5 {_POINTS}",
        margin=5.0,
        experiment="transfer",
        work=work.transfer,
        figures=("transfer", "transfer-table"),
    ),
    Entry(
        key="prefix",
        kept="unknown",
        covers=("Bars of prefix substitution",),
        title="Prefix substitution",
        claim="Writing the promoted token before the completion gives much of the last vector's gain.",
        measures="accuracy of the base with a token written first, for its ten likeliest openers too; token chosen on "
        "train problems",
        threshold=f"5 {_POINTS}",
        margin=5.0,
        experiment="prefix-substitution",
        work=work.prefix_substitution,
        figures=("prefix-substitution",),
        published=(*p.BASES, *p.PREFIXES, *p.LAST),
    ),
    Entry(
        key="placement",
        kept="unknown",
        covers=("Appendix C",),
        title="Placement inside the block",
        claim="The place inside the block where the vector is added matters little.",
        measures="accuracy of one trained vector at four places, equally many learning rates each",
        threshold=f"within 5 {_POINTS}",
        margin=5.0,
        experiment="placement",
        work=work.placement,
        figures=("placement",),
        published=p.PLACES,
    ),
    Entry(
        key="magnitude",
        kept="ours",
        title="Magnitude",
        claim="The trained scale is near the best one.",
        measures="accuracy, boxed and ended answers and KL at factors from -1 to 10",
        threshold=f"5 {_POINTS}",
        margin=5.0,
        experiment="magnitude",
        work=work.magnitude,
        figures=("magnitude", "magnitude-beside"),
    ),
    Entry(
        key="full-tuning",
        kept="in part",
        covers=("Abstract, first claim",),
        title="Vectors against full tuning",
        claim="Trained vectors match training all weights.",
        measures="accuracy of vectors, LoRA and all weights with equal rollouts and tuning budget, at least 3 seeds",
        threshold="non-inferior within 5 accuracy points; 95 % interval, paired by problem",
        margin=5.0,
        experiment="match-full-tuning",
        work=work.match_full_tuning,
        figures=("match-full-tuning", "match-full-tuning-mechanism"),
    ),
    Entry(
        key="gain-ladder",
        kept="ours",
        title="The gain ladder",
        claim="How much of the gain do simpler explanations reach?",
        measures="accuracy from base through matched entropy, few-shot, prefix, first position only, format and random "
        "reward, one layer, all layers, LoRA, to full tuning",
        threshold=f"5 {_POINTS}",
        margin=5.0,
        experiment="gain-ladder",
        work=work.gain_ladder,
        figures=("gain-ladder",),
    ),
    Entry(
        key="side-effects",
        kept="ours",
        title="Side effects",
        claim="The vectors act on their task and leave other text alone.",
        measures="KL and perplexity on neutral text against KL on the task, repetition of off-task answers, problems "
        "broken against fixed, at three doses",
        threshold="ln(KL on the task / KL on neutral text) 0.5 above that of random vectors of equal effect on the "
        "task; repetition: 0.05 of the tokens; 95 % intervals over texts, questions and problems",
        margin=0.5,
        experiment="side-effects",
        work=work.side_effects,
        figures=("side-effects", "side-effects-answers"),
    ),
    Entry(
        key="geometry",
        kept="ours",
        title="Geometry of the vectors",
        claim="Vectors found in different ways point in one direction.",
        measures="norms against the residual stream, cosines between blocks, with other seeds, with vectors trained "
        "apart or together, and with mean difference and probe of right against wrong completions",
        threshold="0.1 in cosine, mean over blocks; 95 % interval, outside random directions of the stream's "
        "covariance",
        margin=0.1,
        experiment="vector-geometry",
        work=work.vector_geometry,
        figures=("vector-geometry", "vector-geometry-sets"),
    ),
    Entry(
        key="effect-against-cost",
        kept="ours",
        title="Effect against cost",
        claim="What does a vector change besides the task?",
        measures="points gained against KL per token on neutral text, dose curves of each vector and of random ones",
        threshold=f"5 {_POINTS}",
        margin=5.0,
        experiment="effect-against-cost",
        work=work.effect_against_cost,
        figures=("effect-against-cost",),
    ),
)

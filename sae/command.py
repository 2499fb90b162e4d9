"""`interp sae`: train an autoencoder of what vectors change, or attribute the change on one prompt to its features."""

from __future__ import annotations

from typing import Any

import click

from interp.before_loading import check_call
from interp.cli.asking import PROMPT, asked, asks
from interp.cli.options import COUNT, POSITIVE, SEED, reads_vectors
from interp.given import as_model, as_task, as_vectors, default_vectors
from interp.numbers import shown
from interp.reading import Reading

MODEL = "smollm2-135m-instruct"
TASK = "word-problems"
SCALES = ("smoke", "quick", "full")
SCALARS = ("kl", "log_prob", "logit_diff")


@click.group("sae")
def command() -> None:
    """Sparse autoencoders of the change that vectors make, or of the stream."""


@command.command("train")
@reads_vectors  # above --layer, so that its own flag is --vector-layer here
@click.option("--model", metavar="M", default=MODEL, show_default=True, help="Model.")
@click.option("--vectors", metavar="V", help="Vectors whose change is described; the model's own if not given.")
@click.option("--task", metavar="T", default=TASK, show_default=True, help="Task with train and validation problems.")
@click.option("--scale", type=click.Choice(SCALES), default="quick", show_default=True, help="Sizes to start from.")
@click.option("--layer", type=click.IntRange(0), help="Block; two thirds of the depth if not given.")
@click.option("--of", type=click.Choice(["change", "stream"]), help="DiffSAE, or plain.")
@click.option("--features", type=COUNT, help="Width of the dictionary.")
@click.option("--k", type=COUNT, help="Active features of a token.")
@click.option("--kind", type=click.Choice(["topk", "batchtopk"]), help="Activation.")
@click.option("--problems", type=COUNT, help="Training problems.")
@click.option("--steps", type=COUNT, help="Updates.")
@click.option("--batch", type=COUNT, help="Tokens of an update.")
@click.option("--rate", type=POSITIVE, help="Adam's rate.")
@click.option("--seed", type=SEED, help="Of every random draw.")
@click.option("--out", metavar="DIR", default="runs/sae", show_default=True, help="Folder.")
@asks()
def train_command(
    model: str,
    vectors: str | None,
    task: str,
    scale: str,
    out: str,
    reading: Reading,
    asking: Any,
    **settings: Any,
) -> None:
    """Train with sae-lens and report on held-out problems."""
    check_call({"model": model, "vectors": vectors, "task": task}, out=out)
    from interp.tasks.asking import prompt_note
    from sae.training import TrainSettings, train

    chosen = TrainSettings.at(scale, **{name: value for name, value in settings.items() if value is not None})
    name = vectors or default_vectors(model)
    problems = asked(as_task(task), asking, name, reading)
    loaded = as_model(model)
    given = as_vectors(name, loaded, problems, reading=reading)
    if note := prompt_note(given, problems):
        click.echo(f"interp: warning: {note}", err=True)
    trained = train(loaded, given, problems, chosen, out=out, say=lambda text: click.echo(text, err=True))
    for name, value in trained.report.model_dump().items():
        click.echo(f"{name:12} {shown(value, '.4g')}")
    reasons = trained.report.reasons
    click.echo("good enough" if not reasons else f"not good enough: {'; '.join(reasons)}")
    click.echo(trained.path)


@command.command("attribute")
@click.argument("prompt")
@click.option("--model", metavar="M", default=MODEL, show_default=True, help="Model.")
@click.option("--vectors", metavar="V", help="Vectors; the model's own if not given.")
@click.option("--sae", "name", metavar="SAE", help="Autoencoder; what comes with the vectors if not given.")
@click.option(
    "--task", metavar="T", default=TASK, show_default=True, help="Task that gives system message and example."
)
@click.option(
    "--metric", type=click.Choice(["kl", "log_prob", "logit_diff"]), default="kl", show_default=True, help="Scalar."
)
@click.option("--top", type=COUNT, default=10, show_default=True, help="Features to show.")
@reads_vectors
@asks(*PROMPT, "tokens")
def attribute_command(
    prompt: str,
    model: str,
    vectors: str | None,
    name: str | None,
    task: str,
    metric: str,
    top: int,
    reading: Reading,
    asking: Any,
) -> None:
    """Complete PROMPT greedily under the vectors and show which features the scalar comes from."""
    check_call({"model": model, "vectors": vectors, "sae": name, "task": task})
    from sae.loading import check_name

    if name is not None:
        check_name(name)
    from interp.sites import Site
    from sae.attribute import Attributor
    from sae.loading import load_for
    from sae.metrics import metrics
    from sae.passes import lay_out, streams

    studied = vectors or default_vectors(model)
    problems = asked(as_task(task), asking, studied, reading)
    loaded = as_model(model)
    given = as_vectors(studied, loaded, problems, reading=reading)
    found = load_for(given, loaded, name)
    rendered = problems.prompt(loaded.tokenizer, prompt)
    said = loaded.generate([rendered], given.edits(), max_new_tokens=problems.max_new_tokens, temperature=0)
    layout = lay_out(loaded, [rendered], [[said.rows[0].ids]])
    last = Site(loaded.n_layers - 1, "resid_post")
    final = [streams(loaded, layout, edits, last).tails for edits in ((), given.edits())]
    scalar = metrics(loaded, layout, *final)[metric]
    made = Attributor(loaded, layout, given.edits(), found)
    nodes = made.nodes(scalar)
    order = nodes.features[0].abs().argsort(descending=True)[:top].tolist()
    measured = made.ablations([scalar], 0, order)[:, 0].tolist()
    click.echo(
        f"{said.texts[0]}\n{metric} {shown(float(nodes.value[0]), '.4g')} nats per token; {found.name} at {found.site}"
    )
    click.echo(f"{'feature':>9} {'attribution':>12} {'taken out':>12}")
    for feature, value in zip(order, measured, strict=True):
        attributed = shown(float(nodes.features[0, feature]), ".4g")
        click.echo(f"{feature:>9} {attributed:>12} {shown(value, '.4g'):>12}  {found.neuron.format(feature)}")
    click.echo(f"{'error':>9} {shown(float(nodes.error[0]), '.4g'):>12}")

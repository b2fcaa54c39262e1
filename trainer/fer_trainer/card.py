"""Model cards in Markdown, written from a model's manifest."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fer_agent.models.manifest import Manifest, Metrics
    from fer_trainer.metrics import PredictionFigures
    from fer_trainer.recipe import Recipe


_WIDTH = 100

_START = {"run": "those of another run of the same network, which the recipe names"}

_FER2013 = """\
FER2013's photos come from web searches made in 2013. Who is shown is not recorded. People
agreed with its labels in 65 ± 5 % of cases (Goodfellow et al., 2013, arXiv:1307.0414).

"""


def render(
    manifest: Manifest, recipe: Recipe, first: PredictionFigures, *, afterwards: Sequence[str] = ()
) -> str:
    """Write the card, Markdown.

    Args:
        manifest: the model's.
        recipe: of its run.
        first: what the first of the manifest's figures were made from.
        afterwards: what was done to the logits after training, in words.
    """
    origin = _FER2013 if manifest.metrics[0].dataset.startswith("FER") else ""
    calibration, provenance = manifest.calibration, manifest.provenance
    return f"""# {manifest.name} {manifest.version}

Reads one of {len(manifest.labels)} facial expressions from a 48x48 gray crop of a face:
{", ".join(manifest.labels)}.

It names the expression that people would read in a photo, not what somebody feels. Do not use it
to judge a person; the European Union's AI Act forbids emotion recognition at work and in education
(Art. 5(1)(f)).

## Figures

{_table(manifest.metrics)}

Accuracy with its 95 % bootstrap interval. ECE is the expected calibration error over 15 bins after
the temperature. `valid` chose the epoch and fitted the calibration; `test` did neither.

{_per_class(manifest)}
{_hurtful(first)}

The last line is the share of a class's images that are wrongly called angry or sad: the mistakes
that people mind most, above all where a neutral face is meant.

## Use

- Input: uint8 ({", ".join(map(str, manifest.input.shape))}), gray; scaling is inside the graph.
- Output: logits; divide by {calibration.temperature} before the softmax.
- Answer `uncertain` below a probability of {calibration.abstain_below}: four in five validation
  crops are above it{_answered(manifest)}.
- {manifest.parameters:,} parameters, {manifest.macs:,} multiply-accumulates a crop.

## Training

- Recipe `{provenance.recipe}`, seed {provenance.seed}, best epoch {provenance.epochs}
  of {recipe.train.epochs}, batches of {recipe.train.batch_size}, on {provenance.device}.
- Strides {", ".join(map(str, recipe.network.strides))}.
- Weights at the start: {_START.get(recipe.network.weights, recipe.network.weights)}.
{_afterwards(afterwards)}- Trainer commit {provenance.commit}.
- Data sha256 {provenance.data_sha256}.

## Limits

{origin}Nothing was measured for groups of people, nor apart for small, turned or covered faces; the
figures above say nothing about them.

Licence: {manifest.licence}.
"""


def _afterwards(sentences: Sequence[str]) -> str:
    lines = (f"- After training {sentence}." for sentence in sentences)
    return "".join(fill(line, _WIDTH, subsequent_indent="  ") + "\n" for line in lines)


def _table(metrics: tuple[Metrics, ...]) -> str:
    lines = [
        "| Data | Split | Protocol | n | Accuracy | Macro-F1 | ECE |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for one in metrics:
        interval = ""
        if one.accuracy_interval is not None:
            low, high = one.accuracy_interval
            interval = f" ({low:.4f} to {high:.4f})"
        lines.append(
            f"| {one.dataset} | {one.split} | {one.protocol} | {one.n:,} "
            f"| {one.accuracy:.4f}{interval} | {one.macro_f1:.4f} | {one.ece:.4f} |"
        )
    return "\n".join(lines)


def _answered(manifest: Manifest) -> str:
    first = manifest.metrics[0]
    if first.answered is None:
        return ""
    coverage, accuracy = first.answered.coverage, first.answered.accuracy
    return f",\n  and on {first.split} {coverage:.1%} with an accuracy of {accuracy:.4f}"


def _hurtful(first: PredictionFigures) -> str:
    shares = " | ".join(f"{share:.3f}" for share in first.wrongly_hurtful.values())
    return f"| wrongly called angry or sad | {shares} |"


def _per_class(manifest: Manifest) -> str:
    first = manifest.metrics[0]
    f1 = " | ".join(f"{first.per_class_f1[label]:.3f}" for label in manifest.labels)
    head = f"| On {first.split} | " + " | ".join(manifest.labels) + " |"
    return f"{head}\n| --- |{' ---: |' * len(manifest.labels)}\n| F1 | {f1} |"

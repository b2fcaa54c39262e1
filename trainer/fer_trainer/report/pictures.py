"""Figures 2 to 5 as PNG, drawn from a results file with matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer_trainer.labels import ordered
from fer_trainer.report.rows import data_of, measured
from fer_trainer.tables import ABLATION, BASELINES

if TYPE_CHECKING:
    from fer_trainer.results import Results

TITLES = {
    2: "Figure 2. Accuracy against parameters",
    3: "Figure 3. PublicTest accuracy while training",
    4: "Figure 4. Confusion on PrivateTest",
    5: "Figure 5. F1 by class on PrivateTest",
}


def pictures(results: Results) -> dict[int, bytes]:
    """Draw the figures that the results suffice for; number to PNG.

    A figure of other data than the whole FER2013 says so above itself.
    """
    rows = measured(results, "baselines", BASELINES) + measured(results, "ablation", ABLATION)
    if not rows:
        return {}
    best = max(rows, key=lambda pair: pair[1]["valid_accuracy"])
    drawn = {2: _sizes(rows), 4: _confusion(*best), 5: _per_class(rows)}
    curves = [(row, record) for row, record in rows if record.get("valid_curve")]
    if curves:
        drawn[3] = _curves(curves)
    return dict(sorted(drawn.items()))


def _canvas(
    rows: list[tuple[Any, dict[str, Any]]], width: float, height: float
) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # The usual ten colours would repeat: 18 rows are possible.
    axes.set_prop_cycle(color=[colormaps["tab20"](shade) for shade in range(20)])
    others = sorted({where for _, record in rows if (where := data_of(record))})
    if others:
        note = f"measured on {', '.join(others)}: not comparable with the paper"
        figure.suptitle(note, size=8, color="#c33")
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _legend(figure: Figure) -> None:
    """Put the names beside the axes, where they hide nothing."""
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)


def _sizes(rows: list[tuple[Any, dict[str, Any]]]) -> bytes:
    figure, axes = _canvas(rows, 8.4, 4.2)
    for row, record in rows:
        size, accuracy = record["parameters"] / 1e6, 100 * record["test"]["accuracy"]
        low, high = (100 * edge for edge in record["test"]["accuracy_interval"])
        drawn = axes.errorbar(
            size, accuracy, [[accuracy - low], [high - accuracy]], fmt="o", capsize=3,
            label=row.title,
        )  # fmt: skip
        if row.paper is not None:
            colour = drawn.lines[0].get_color()
            axes.plot(size, row.paper, marker="D", fillstyle="none", color=colour, linestyle="")
    axes.plot([], [], "kD", fillstyle="none", label="accuracy in the paper")
    axes.set(xscale="log", xlabel="parameters, millions", ylabel="PrivateTest accuracy, %")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    _legend(figure)
    return _png(figure)


def _curves(rows: list[tuple[Any, dict[str, Any]]]) -> bytes:
    figure, axes = _canvas(rows, 8.4, 4.2)
    for row, record in rows:
        curve = 100 * np.array(record["valid_curve"])
        axes.plot(np.arange(1, len(curve) + 1), curve, marker=".", label=row.title)
    axes.set(xlabel="epoch", ylabel="PublicTest accuracy, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    _legend(figure)
    return _png(figure)


def _confusion(row: Any, record: dict[str, Any]) -> bytes:
    figure, axes = _canvas([(row, record)], 5.2, 5.0)
    labels = list(record["test"]["per_class"])
    counts = np.array(record["test"]["confusion"], float)
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for (truth, answer), value in np.ndenumerate(share):
        colour = "white" if value > 50 else "black"
        axes.text(answer, truth, f"{value:.0f}", ha="center", va="center", size=8, color=colour)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="answer", ylabel="truth")
    axes.set_title(f"{row.title}, best on PublicTest; % of the truth", size=9)
    return _png(figure)


def _per_class(rows: list[tuple[Any, dict[str, Any]]]) -> bytes:
    figure, axes = _canvas(rows, 9.6, 4.2)
    # rows of FER2013 and of FER+ may be in one file, with seven and eight classes
    labels = ordered({label for _, record in rows for label in record["test"]["per_class"]})
    width = 0.8 / len(rows)
    for number, (row, record) in enumerate(rows):
        own = record["test"]["per_class"]
        f1 = [own[label]["f1"] if label in own else 0.0 for label in labels]
        axes.bar(np.arange(len(labels)) + number * width, f1, width, label=row.title)
    axes.set_xticks(np.arange(len(labels)) + 0.4 - width / 2, labels)
    axes.set(ylabel="F1", ylim=(0, 1))
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
    _legend(figure)
    return _png(figure)

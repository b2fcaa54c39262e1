"""The commands `baselines`, `ablate`, `bench` and `report`, for the paper's tables and figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from fer_trainer.commands.options import (
    AnyCounts,
    DataOption,
    EpochsOption,
    JsonOption,
    KindOption,
    LimitOption,
    MapOption,
    OnlyOption,
    RecipeOption,
    ResultsOption,
    RowTargetsOption,
    RowTeachersOption,
    SeedsOption,
    SetOption,
    ThreadsOption,
    VotesOption,
    choose_recipe,
    noise_of,
    source_of,
)
from fer_trainer.commands.terminal import measure_rows, print_json

app = typer.Typer()

PANEL = "The paper's tables and figures"


@app.command(rich_help_panel=PANEL)
def baselines(
    *,
    data: Annotated[
        Optional[Path],  # noqa: UP045  # Typer on Python 3.10 wants it spelt out
        typer.Option("--data", help="Data set; faces of noise when left out with tests-smoke."),
    ] = None,
    kind: KindOption = None,
    votes: VotesOption = None,
    label_map: MapOption = None,
    results: ResultsOption = Path("runs/results.json"),
    recipe: RecipeOption = "coarse",
    settings: SetOption = None,
    only: OnlyOption = None,
    teachers: RowTeachersOption = None,
    targets: RowTargetsOption = None,
    seeds: SeedsOption = "1",
    epochs: EpochsOption = 0,
    limit: LimitOption = 0,
    any_counts: AnyCounts = False,
    threads: ThreadsOption = 0,
) -> None:
    """Measure Table 1, row by row; what is measured already stays."""
    from fer_trainer.data.open import is_affectnet
    from fer_trainer.tables import AFFECTNET, BASELINES

    chosen = choose_recipe(recipe, settings, epochs=epochs)
    if data is None:
        source = noise_of(chosen)
    else:
        source = source_of(data, kind, votes, label_map, any_counts=any_counts, limit=limit)
    table, rows = ("affectnet", AFFECTNET) if is_affectnet(source) else ("baselines", BASELINES)
    measure_rows(table, rows, chosen, source, results, only=only, teachers=teachers,
          targets=targets, seeds=seeds, threads=threads)  # fmt: skip


@app.command(rich_help_panel=PANEL)
def ablate(
    *,
    data: DataOption,
    kind: KindOption = None,
    votes: VotesOption = None,
    label_map: MapOption = None,
    results: ResultsOption = Path("runs/results.json"),
    recipe: RecipeOption = "coarse",
    settings: SetOption = None,
    only: OnlyOption = None,
    teachers: RowTeachersOption = None,
    targets: RowTargetsOption = None,
    seeds: SeedsOption = "1",
    epochs: EpochsOption = 0,
    limit: LimitOption = 0,
    any_counts: AnyCounts = False,
    threads: ThreadsOption = 0,
) -> None:
    """Measure Table 2, row by row; what is measured already stays."""
    from fer_trainer.tables import ABLATION

    chosen = choose_recipe(recipe, settings, epochs=epochs)
    source = source_of(data, kind, votes, label_map, any_counts=any_counts, limit=limit)
    measure_rows("ablation", ABLATION, chosen, source, results, only=only, teachers=teachers,
          targets=targets, seeds=seeds, threads=threads)  # fmt: skip


@app.command(rich_help_panel=PANEL)
def bench(
    *,
    path: Annotated[
        Optional[Path],  # noqa: UP045  # as above
        typer.Argument(help="Run or checkpoint; without one, the recipe's network."),
    ] = None,
    recipe: RecipeOption = "paper",
    settings: SetOption = None,
    runs: Annotated[int, typer.Option(min=1, help="Passes measured.")] = 1_000,
    warmup: Annotated[int, typer.Option(min=0, help="Passes before.")] = 100,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    threads: ThreadsOption = 0,
    results: Annotated[
        Optional[Path],  # noqa: UP045  # as above
        typer.Option(help="Also add the row to this results file, for the report."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a network's latency in PyTorch: the paper's protocol, one crop at a time."""
    from fer_trainer import checkpoint
    from fer_trainer.bench import measure
    from fer_trainer.deploy import network_of
    from fer_trainer.fabric import open_device
    from fer_trainer.networks.build import rebuild_network
    from fer_trainer.results import Results

    place = open_device(device, threads=threads)
    if path is not None:
        network = network_of(checkpoint.load(checkpoint.best_of(path)))
    else:
        network = rebuild_network(choose_recipe(recipe, settings).network, classes=7).eval()
    speed = measure(network, place, runs=runs, warmup=warmup)
    if results is not None:
        Results.open(results).add("speed", place.type, {"seed": 0, **speed.as_json()})
    if as_json:
        print_json(speed.as_json())
        return
    print(f"{speed.device}: {speed.mean_ms:.2f} ms mean, {speed.p50_ms:.2f} median, "
          f"{speed.p95_ms:.2f} p95, {speed.fps:.0f} FPS, peak {speed.peak_mb:.0f} MB; "
          f"{speed.parameters:,} parameters, {speed.macs:,} MACs")  # fmt: skip


@app.command(rich_help_panel=PANEL)
def report(
    *,
    results: Annotated[
        Optional[Path],  # noqa: UP045  # as above
        typer.Option(
            help="From baselines, ablate, bench; by default runs/results.json, or where that is "
            "not there what was measured for this release."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("runs/report"),
) -> None:
    """Render Tables 1 to 3 and Figures 2 to 5: Markdown, PNG and one HTML page."""
    from fer_trainer.report.pages import write_report
    from fer_trainer.results import Results, default_results

    chosen = results or default_results()
    for path in write_report(Results.open(chosen), out):
        print(path)
    print(f"of the rows in {chosen}", file=sys.stderr)

"""`fer-agent bench`: how fast this device is; `fer-agent bench compare` two results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_agent.commands.options import ConfigOption, JsonOption
from fer_agent.commands.terminal import stopping
from fer_agent.errors import FindingsError

if TYPE_CHECKING:
    from fer_agent.bench.record import BenchReport

_INTERRUPTED = 130
"""As a shell says it of a process that Ctrl-C ended."""

app = typer.Typer()
_bench = typer.Typer(invoke_without_command=True)
app.add_typer(_bench, name="bench")


@_bench.callback()
def bench(
    context: typer.Context,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model's name, `yunet`, an ONNX file or a model folder; may be repeated. "
            "By default every shipped model in every precision, and YuNet where its file is.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Measured passes of each network.")] = 1000,
    warmup: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Passes that do not count; by default 100, or as many as --runs if fewer.",
            show_default=False,
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Measured frames of each pipeline run; by default 300, or --runs if fewer.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=64,
            help="Threads inside one pass; may be repeated. By default from one to all cores.",
            show_default=False,
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="onnx or tensorrt; may be repeated. By default every one that is here.",
            show_default=False,
        ),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="Input of an ONNX file that leaves its own open, such as 1,3,224,224.",
            show_default=False,
        ),
    ] = None,
    clip: Annotated[
        Path | None,
        typer.Option(
            help="Video, GIF, picture or folder for the pipeline instead of the drawn scene.",
            show_default=False,
        ),
    ] = None,
    faces: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            max=8,
            help="People in the drawn scene; may be repeated. By default 1, 2, 4 and 8.",
            show_default=False,
        ),
    ] = None,
    sustained: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            min=0.05,
            help="Go on with the pipeline for so long, and show how its rate holds.",
            show_default=False,
        ),
    ] = None,
    networks: Annotated[
        bool, typer.Option("--networks/--no-networks", help="Measure networks alone.")
    ] = True,
    pipeline: Annotated[
        bool, typer.Option("--pipeline/--no-pipeline", help="Measure the pipeline's stages.")
    ] = True,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Write this Markdown page, with pictures.", show_default=False),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="Show the result beside this earlier one.", show_default=False),
    ] = None,
) -> None:
    """Measure how fast this device is: networks alone, then whole frames stage by stage.

    The paper's protocol: one input at a time, 100 passes that do not count, 1,000 that do.
    """
    if context.invoked_subcommand is not None:
        return
    from fer_agent.bench import compare as comparing
    from fer_agent.bench import subjects
    from fer_agent.bench.protocol import WARMUP, Protocol
    from fer_agent.bench.session import FACES, BenchSession, Options
    from fer_agent.config import loading

    earlier = None if compare is None else comparing.read(compare)
    session = BenchSession(
        loading.load_incomplete(config),
        Options(
            protocol=Protocol(warmup=min(WARMUP, runs) if warmup is None else warmup, runs=runs),
            frames=frames,
            choice=subjects.Choice(
                models=tuple(model or ()),
                runtimes=tuple(runtime or ()),
                threads=tuple(sorted(set(threads or ()))),
                shape=None if input_shape is None else subjects.parse_shape(input_shape),
            ),
            faces=tuple(sorted(set(faces))) if faces else FACES,
            clip=clip,
            sustained_minutes=sustained,
            networks=networks,
            pipeline=pipeline,
        ),
        on_step=lambda words: typer.echo(words, err=True),
    )
    with stopping(session.stop):
        report = session.run()
    _raise_if_nothing(report)
    if markdown is not None:
        from fer_agent.bench import markdown as pages

        for path in pages.write(report, markdown):
            typer.echo(f"wrote {path}", err=True)
    _show(report, as_json=as_json)
    if compare is not None and earlier is not None:
        found = comparing.compare(earlier, report, (compare.name, "this run"))
        typer.echo(f"\n{comparing.as_table(found).as_text()}", err=as_json)
    if report.interrupted:
        raise typer.Exit(_INTERRUPTED)
    if report.problems():
        raise typer.Exit(FindingsError.exit_code)


@_bench.command("compare")
def compare_files(
    first: Annotated[Path, typer.Argument(help="A file that `bench --json` wrote.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Show two results side by side."""
    from fer_agent.bench import compare as comparing

    names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
    found = comparing.compare(comparing.read(first), comparing.read(second), names)
    typer.echo(found.model_dump_json() if as_json else comparing.as_table(found).as_text())


def _show(report: BenchReport, *, as_json: bool) -> None:
    from fer_agent.bench import table

    typer.echo(report.model_dump_json() if as_json else table.as_text(report))


def _raise_if_nothing(report: BenchReport) -> None:
    """End with the first problem's own words and exit code when there is nothing else to show."""
    problems = report.problems()
    if not problems or report.has_figures():
        return
    from fer_agent import errors

    kind = getattr(errors, problems[0].error, errors.AgentError)
    raise kind(problems[0].message, remedy=problems[0].remedy)

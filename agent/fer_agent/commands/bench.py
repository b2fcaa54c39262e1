"""`fer-agent bench` measures this device; `fer-agent bench compare` compares two results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_agent.commands.options import ConfigOption, JsonOption, option
from fer_agent.commands.terminal import stopping
from fer_agent.errors import FindingsError

if TYPE_CHECKING:
    from fer_agent.bench.record import BenchReport

_INTERRUPTED = 130
"""The exit code of a process that Ctrl-C ended, as shells have it."""

app = typer.Typer()
_bench = typer.Typer(invoke_without_command=True)
app.add_typer(_bench, name="bench")


ModelsOption = Annotated[
    list[str] | None,
    option(
        "A model's name, `yunet`, an ONNX file or a model folder; may be repeated. "
        "By default every shipped model in every precision, and YuNet where its file is."
    ),
]
WarmupOption = Annotated[
    int | None,
    option("Passes that do not count; by default 100, or as many as --runs if fewer.", min=0),
]
FramesOption = Annotated[
    int | None,
    option("Measured frames of each pipeline run; by default 300, or --runs if fewer.", min=2),
]
ThreadsOption = Annotated[
    list[int] | None,
    option(
        "Threads inside one pass; may be repeated. By default from one to all cores.", min=1, max=64
    ),
]
RuntimesOption = Annotated[
    list[str] | None,
    option("onnx or tensorrt; may be repeated. By default every one that is here."),
]
ShapeOption = Annotated[
    str | None, option("Input of an ONNX file that leaves its own open, such as 1,3,224,224.")
]
ClipOption = Annotated[
    Path | None,
    option("Video, GIF, picture or folder for the pipeline instead of the drawn scene."),
]
FacesOption = Annotated[
    list[int] | None,
    option("People in the drawn scene; may be repeated. By default 1, 2, 4 and 8.", min=0, max=8),
]
SustainedOption = Annotated[
    float | None,
    option(
        "Go on with the pipeline for so long, and show how its rate holds.",
        metavar="MINUTES",
        min=0.05,
    ),
]


@_bench.callback()
def bench(
    context: typer.Context,
    *,
    model: ModelsOption = None,
    runs: Annotated[int, typer.Option(min=1, help="Measured passes of each network.")] = 1000,
    warmup: WarmupOption = None,
    frames: FramesOption = None,
    threads: ThreadsOption = None,
    runtime: RuntimesOption = None,
    input_shape: ShapeOption = None,
    clip: ClipOption = None,
    faces: FacesOption = None,
    sustained: SustainedOption = None,
    networks: Annotated[
        bool, typer.Option("--networks/--no-networks", help="Measure networks alone.")
    ] = True,
    pipeline: Annotated[
        bool, typer.Option("--pipeline/--no-pipeline", help="Measure the pipeline's stages.")
    ] = True,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    markdown: Annotated[Path | None, option("Write this Markdown page, with pictures.")] = None,
    compare: Annotated[Path | None, option("Show the result beside this earlier one.")] = None,
) -> None:
    """Measure how fast this device is: networks alone, then whole frames stage by stage.

    The paper's protocol: one input at a time, 100 passes that do not count, 1,000 that do.
    """
    if context.invoked_subcommand is not None:
        return
    from fer_agent.bench import compare as comparing
    from fer_agent.bench.protocol import WARMUP, Protocol
    from fer_agent.bench.session import FACES, BenchSession, Options
    from fer_agent.bench.subjects import SubjectChoice, parse_shape
    from fer_agent.config import loading

    earlier = None if compare is None else (comparing.read(compare), compare.name)
    options = Options(
        protocol=Protocol(warmup=min(WARMUP, runs) if warmup is None else warmup, runs=runs),
        frames=frames,
        choice=SubjectChoice(
            tuple(model or ()), tuple(runtime or ()), tuple(threads or ()), parse_shape(input_shape)
        ),
        faces=tuple(sorted(set(faces or FACES))),
        clip=clip,
        sustained_minutes=sustained,
        networks=networks,
        pipeline=pipeline,
    )
    settings = loading.load_incomplete(config)
    session = BenchSession(settings, options, on_step=lambda line: typer.echo(line, err=True))
    with stopping(session.stop):
        report = session.run()
    _show(report, earlier, markdown, as_json=as_json)
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


def _show(
    report: BenchReport,
    earlier: tuple[BenchReport, str] | None,
    page: Path | None,
    *,
    as_json: bool,
) -> None:
    """Show a result, and beside it an earlier one with its name; write it to a Markdown page.

    Raises:
        AgentError: the first problem, when there are no figures to show.
    """
    from fer_agent import errors
    from fer_agent.bench import compare, markdown, table

    problems = report.problems()
    if problems and not report.has_figures():
        kind = getattr(errors, problems[0].error, errors.AgentError)
        raise kind(problems[0].message, remedy=problems[0].remedy)
    if page is not None:
        for path in markdown.write(report, page):
            typer.echo(f"wrote {path}", err=True)
    typer.echo(report.model_dump_json() if as_json else table.as_text(report))
    if earlier is not None:
        found = compare.compare(earlier[0], report, (earlier[1], "this run"))
        typer.echo(f"\n{compare.as_table(found).as_text()}", err=as_json)

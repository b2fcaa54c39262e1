"""The command line `fer-train`, and the exit code of each error.

Importing this module loads the standard library and Typer, nothing else; each command imports
what it needs when it runs. Only this module and `fer_trainer.commands` print or exit.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from fer_agent.errors import AgentError
from fer_trainer.commands import paper, publish, shipping, training

_CTRL_C = 130
"""The exit code of shells after SIGINT, 128 + 2."""

_GUIDE = """Train, judge and export the networks that fer-agent runs.

\b
From data to a model the agent runs:
  fer-train prepare  --data fer2013.tar.xz
  fer-train train    --recipe coarse --data fer2013.tar.xz --out runs/coarse
  fer-train evaluate runs/coarse     --data fer2013.tar.xz
  fer-train export   runs/coarse     --data fer2013.tar.xz --out models/own
  fer-train quantize models/own      --data fer2013.tar.xz

\b
The paper's training, tables and figures:
  fer-train distill   --recipe paper --data fer2013.tar.xz
  fer-train baselines --data fer2013.tar.xz
  fer-train ablate    --data fer2013.tar.xz --teacher runs/distill/teacher
  fer-train report

\b
A stopped command, given again, goes on where it was. Recipes are `best`,
`coarse`, `paper`, `tests-smoke` or a .toml file; `--set section.switch=value`
changes one switch. The validation split chooses the epoch; the test split is
reported once. Every command has its own `--help`.
"""


class _Commands(TyperGroup):
    """Prints a sentence at Ctrl-C, where Typer's versions end silently or with an error of ours."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's own class
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print(
                "fer-train: stopped; the same command goes on after the last saved epoch",
                file=sys.stderr,
            )
            raise typer.Exit(_CTRL_C) from None


app = typer.Typer(
    cls=_Commands,
    name="fer-train",
    help=_GUIDE,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(training.app)
app.add_typer(shipping.app)
app.add_typer(publish.app, name="publish", rich_help_panel=shipping.PANEL)
app.add_typer(paper.app)


@app.callback(help=_GUIDE)
def _root() -> None:
    pass


def main() -> None:
    """Run a command; an `AgentError` becomes two lines and its exit code."""
    # OpenMP's threads wait spinning by default, which ruins a machine with other work to do: two
    # training threads on two shared cores reached 28 img/s spinning and 225 waiting.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except AgentError as error:
        print(f"fer-train: {error}", file=sys.stderr)
        print(f"  {error.remedy}", file=sys.stderr)
        sys.exit(error.exit_code)

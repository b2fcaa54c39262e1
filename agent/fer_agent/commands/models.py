"""`fer-agent models`: what is in the store, signed updates, activation, the measured choice."""

from __future__ import annotations

import typer

from fer_agent.commands import models_activation, models_build

app = typer.Typer(
    help="The model store: what is there, signed updates, activation and rollback.",
    no_args_is_help=True,
)
app.add_typer(models_build.app)
app.add_typer(models_activation.app)

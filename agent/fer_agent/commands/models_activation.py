"""`fer-agent models activate|rollback`: which version runs, changed by hand."""

from __future__ import annotations

import typer

app = typer.Typer()

"""`fer-agent models build`: the fastest file and thread count of this board, by measurement."""

from __future__ import annotations

import typer

app = typer.Typer()

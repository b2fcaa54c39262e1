"""`fer-agent bench`: how fast this device is."""

from __future__ import annotations

import typer

app = typer.Typer()

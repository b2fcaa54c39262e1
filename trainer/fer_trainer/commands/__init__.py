"""Commands by concern; part of `cli.py` in all but name."""

"""The commands and their options; only these modules and `cli.py` print or exit."""

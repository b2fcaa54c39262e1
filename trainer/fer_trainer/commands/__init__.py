"""The commands of `fer-train`; only these modules and `cli.py` print or exit.

One module for each panel of `fer-train --help`, and one for `fer-train publish`.
"""

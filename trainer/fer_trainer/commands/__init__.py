"""What each command does with its options: these modules and `cli.py` alone print or exit.

One module for each panel of `fer-train --help`, and one for `fer-train publish`.
"""

"""What each command does with its options: these modules and `cli.py` alone print or exit."""

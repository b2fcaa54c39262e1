"""The subscriber of `fer-agent watch` and its live table."""

"""The checks of `fer-agent doctor`."""

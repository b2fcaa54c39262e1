"""The kinds of cameras, one module each."""

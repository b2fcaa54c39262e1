"""The choice of a model's file, runtime and threads on this board, by measurement."""

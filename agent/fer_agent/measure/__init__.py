"""Which file of a model runs here, on which runtime and how many threads: chosen by measurement."""

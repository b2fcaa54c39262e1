"""Readers of the data sources, one module each; each gives a `FaceSet`."""

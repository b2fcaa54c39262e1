"""Data sources: one file each; all end in a `FaceSet`."""

"""Measurements of this device's speed: networks, the pipeline by stage, and sustained runs."""

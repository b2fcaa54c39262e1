"""Cameras and media files: each gives frames from a thread of its own, newest only."""

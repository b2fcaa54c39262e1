"""Cameras and media files as sources of frames."""

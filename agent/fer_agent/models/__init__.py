"""Emotion words, and the manifests and folders of models."""

"""The models: emotion words, manifests and folders."""

"""What a model is: emotion words, manifests, and the folders models are in."""

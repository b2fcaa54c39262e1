"""Runtimes that run a network, each as an `InferenceSession`."""

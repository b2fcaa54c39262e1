"""The model, the loading and the errors of the configuration."""

"""The configuration: its model, its loading, and its errors."""

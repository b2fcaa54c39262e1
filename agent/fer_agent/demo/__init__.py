"""The demo of `fer-agent demo`."""

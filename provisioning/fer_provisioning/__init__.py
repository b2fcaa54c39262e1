"""Installs agents on devices with pyinfra, in a separate process: `python -m fer_provisioning`."""

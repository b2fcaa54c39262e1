"""Puts agents on devices: a process of its own, `python -m fer_provisioning`, on pyinfra."""

"""Runs the commands of `fer-agent` that work on boards, as `python -m fer_provisioning`."""

from gevent import monkey

# Before anything else is imported: paramiko's threads and sockets become greenlets.
monkey.patch_all()

from fer_provisioning.cli import main  # noqa: E402 - as above

main()

"""Adds a new board's host key to known_hosts once a person has confirmed it."""

from __future__ import annotations

import base64
import hashlib
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko

from fer_agent.errors import CredentialsError
from fer_provisioning import failures

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_provisioning.targets import Target

_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of a target's SSH server, after the user's ssh configuration.

    Attributes:
        host: name or address to connect to.
        port: TCP port.
        proxied: only reached through another host; its key cannot be asked for from here.
    """

    host: str
    port: int
    proxied: bool

    @property
    def known_hosts_name(self) -> str:
        """Its name in known_hosts."""
        return self.host if self.port == paramiko.config.SSH_PORT else f"[{self.host}]:{self.port}"


def default_known_hosts() -> Path:
    """Return the user's known_hosts file."""
    return Path.home() / ".ssh" / "known_hosts"


def endpoint(target: Target, ssh_config: Path | None = None) -> Endpoint:
    """Look a target up in the user's ssh configuration."""
    path = ssh_config or Path.home() / ".ssh" / "config"
    config = paramiko.SSHConfig()
    if path.is_file():
        config = paramiko.SSHConfig.from_path(str(path))
    found = config.lookup(target.address or "")
    return Endpoint(
        host=found["hostname"],
        port=target.port or int(found.get("port", 22)),
        proxied="proxyjump" in found or "proxycommand" in found,
    )


def ensure_known(target: Target, known_hosts: Path, confirm: Callable[[str], bool] | None) -> None:
    """Make sure that a target's key is in known_hosts before anything is sent.

    Args:
        target: a board reached over SSH.
        known_hosts: the file to look in and to add to.
        confirm: asked with the key's fingerprint; None trusts only what is already known.

    Raises:
        CredentialsError: the key is unknown, and was not confirmed or could not be asked for.
        UnavailableError: the host cannot be reached.
    """
    where = endpoint(target)
    known = paramiko.HostKeys()
    if known_hosts.is_file():
        known.load(str(known_hosts))
    if known.lookup(where.known_hosts_name) is not None or where.proxied:
        return
    key = _fetch(where)
    if confirm is None:
        raise CredentialsError(
            f"connect: its host key {fingerprint(key)} is not known, and nobody can be asked",
            remedy="connect once with `ssh` and compare the fingerprint, or use --known-hosts FILE",
        )
    question = (
        f"{target.name} is new. Its {key.get_name()} key has the fingerprint\n"
        f"  {fingerprint(key)}\nIs that the board's? Compare it with "
        "`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there."
    )
    if not confirm(question):
        raise CredentialsError(
            "connect: its host key was not confirmed", remedy="run again once it is certain"
        )
    known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = known_hosts.read_bytes() if known_hosts.is_file() else b""
    with known_hosts.open("a", encoding="utf-8") as file:
        file.write("" if before[-1:] in (b"", b"\n") else "\n")
        file.write(f"{where.known_hosts_name} {key.get_name()} {key.get_base64()}\n")


def fingerprint(key: paramiko.PKey) -> str:
    """Return a key's SHA-256 fingerprint as ssh-keygen prints it."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _fetch(where: Endpoint) -> paramiko.PKey:
    """Ask a server for its key."""
    try:
        with socket.create_connection((where.host, where.port), timeout=_TIMEOUT_S) as connection:
            transport = paramiko.Transport(connection)
            try:
                transport.start_client(timeout=_TIMEOUT_S)
                return transport.get_remote_server_key()
            finally:
                transport.close()
    except (OSError, paramiko.SSHException) as error:
        raise failures.connecting(str(error)) from error

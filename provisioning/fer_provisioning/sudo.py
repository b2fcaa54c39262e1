"""Becomes root on boards with sudo; the password is asked once and shows in no process list."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from fer_agent.errors import CredentialsError
from fer_provisioning import failures, layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyinfra.api.host import Host

_STAND_IN = "in a file"
"""pyinfra puts a password on a command line: this one, as the real one is in a file there."""

_TRY = 'said=$(LC_ALL=C sudo -n true 2>&1) || echo "sudo said: $said"'
"""Prints nothing when sudo wants no password; pyinfra would answer sudo's own line by asking."""

_ASKPASS = """\
umask 077
find "${XDG_RUNTIME_DIR:-/dev/shm}" -maxdepth 1 -user "$(id -u)" -name 'fer-agent-????????' \
    -mmin +60 -exec rm -rf {} + 2>/dev/null
folder=$(mktemp -d "${XDG_RUNTIME_DIR:-/dev/shm}/fer-agent-XXXXXXXX") || exit 1
cat >"$folder/password"
printf '#!/bin/sh\\ncat "%s/password"\\n' "$folder" >"$folder/askpass"
chmod 700 "$folder/askpass"
echo "$folder/askpass"
"""


class Sudo:
    """The sudo passwords and rights on all boards of a run.

    Args:
        ask: asks for the password, once for all boards; None cannot ask.
    """

    def __init__(self, ask: Callable[[], str] | None) -> None:
        self._ask = ask
        self._password: str | None = None
        self._askpass: dict[str, str] = {}
        self._plain: set[str] = set()

    def prepare(self, host: Host) -> None:
        """Find out how to become root on a board, and try.

        Raises:
            CredentialsError: a password is needed and nobody can be asked, or it was refused.
        """
        _, output = host.run_shell_command("id -u")
        if output.stdout_lines[-1:] == ["0"]:
            self._plain.add(host.name)
            return
        _, output = host.run_shell_command(_TRY)
        said = " ".join(output.stdout_lines)
        if "password is required" in said or "authentication is required" in said:
            self._lay_password(host)
        elif said:
            raise failures.of_step("become root", [said])
        done, output = host.run_shell_command("true", **self.arguments(host))
        if not done:
            raise failures.of_step("become root", output.stderr_lines)

    def arguments(self, host: Host) -> dict[str, Any]:
        """Return what makes pyinfra run something as root on a board."""
        if host.name in self._plain:
            return {}
        if host.name in self._askpass:
            return {"_sudo": True, "_sudo_password": _STAND_IN}
        return {"_sudo": True}

    def forget(self, host: Host) -> None:
        """Remove the password from a board."""
        if askpass := self._askpass.pop(host.name, None):
            host.run_shell_command(f"rm -rf '{askpass.rpartition('/')[0]}'")

    def _lay_password(self, host: Host) -> None:
        if self._password is None:
            if self._ask is None:
                raise CredentialsError(
                    "become root: sudo wants a password there, and nobody can be asked",
                    remedy="run in a terminal, or use --sudo-password-file",
                )
            self._password = self._ask()
        script = "'" + _ASKPASS.replace("'", "'\\''") + "'"
        done, output = host.run_shell_command(f"sh -c {script}", _stdin=io.StringIO(self._password))
        if not done or not output.stdout_lines:
            raise failures.of_step("become root", output.stderr_lines)
        self._askpass[host.name] = output.stdout_lines[-1]
        # Where pyinfra keeps its own askpass script's path, for the folder its files wait in.
        host.connector_data[f"sudo_askpass_path__{layout.TEMPORARY}"] = output.stdout_lines[-1]

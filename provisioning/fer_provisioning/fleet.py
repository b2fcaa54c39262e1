"""Connects to several boards, plans and runs their steps, each board in a separate greenlet.

It uses pyinfra's connections, facts and operations. Each board runs its steps independently, so a
slow board delays no other and a failed one ends no other's run.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gevent.lock import BoundedSemaphore
from gevent.pool import Pool
from paramiko import SSHException
from pyinfra.api import output
from pyinfra.api.config import Config
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.inventory import Inventory
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import State, StateStage
from pyinfra.context import ctx_host, ctx_state
from pyinfra.operations import apt, files, server

from fer_agent.errors import AgentError
from fer_provisioning import failures, layout
from fer_provisioning.board import Probe, TargetBoard, UnsupportedBoardError, identify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pyinfra.api.host import Host
    from pyinfra.api.operation import OperationMeta

    from fer_provisioning.progress import Progress
    from fer_provisioning.sudo import Sudo
    from fer_provisioning.targets import Target

_BROKEN = (PyinfraError, SSHException, OSError, EOFError)
"""Exceptions of pyinfra and paramiko when a board or the connection to it fails."""

_SLOW = (apt.packages, files.put, server.shell)
"""Operations that download, copy, or run a script of `board_scripts`."""

_CONNECT_TIMEOUT_S = 10
_UNACKNOWLEDGED_MS = 30_000
"""A connection without an acknowledgement for so long is closed: the board was unplugged."""
_KEEPALIVE_S = 10


@dataclass(slots=True)
class Site:
    """One board in the course of a run; only its own greenlet writes here.

    Attributes:
        target: the board's address and settings.
        host: pyinfra's side of it.
        probe: its answers to `probe.sh`.
        board: what kind of board it is; None until it is probed, or when it is unsupported.
        steps: planned steps, in order.
        changed: names of the steps that changed something, or would.
        error: the error that ended the run for this board; None when all went well.
        root: pyinfra's arguments that make an operation run as root.
    """

    target: Target
    host: Host
    root: dict[str, Any] = field(default_factory=dict)
    probe: Probe = field(default_factory=Probe)
    board: TargetBoard | None = None
    steps: list[PlannedStep] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    error: AgentError | None = None

    @property
    def version(self) -> str:
        """Version of the agent that is on the board now; empty for none."""
        return self.probe.current_release.rpartition("-")[0]

    def add(
        self, name: str, operation: Callable[..., OperationMeta], *args: Any, **kwargs: Any
    ) -> None:
        """Plan one step: a pyinfra operation, run as root."""
        meta = operation(*args, name=name, **kwargs, **self.root)
        slow = operation in _SLOW
        self.steps.append(PlannedStep(name, self.host.op_hash_order[-1], meta.will_change, slow))

    def add_script(self, name: str, script: str, *arguments: str) -> None:
        """Plan one step that runs one of `board_scripts`; it counts as a change."""
        words = " ".join(_quote(word) for word in (layout.board_script(script), "fer", *arguments))
        self.add(name, server.shell, commands=[f"sh -c {words}"])


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A planned step.

    Attributes:
        name: what it does, as the progress line says it.
        op_hash: pyinfra's name for it.
        changes: whether it changes the board.
        slow: whether it may take long, so that its start is reported too.
    """

    name: str
    op_hash: str
    changes: bool
    slow: bool


class Fleet:
    """Connections to a number of boards.

    Args:
        targets: the boards.
        progress: reports every step.
        sudo: how to become root.
        known_hosts: file of trusted host keys; all other keys are refused.
        parallel: boards worked on at a time.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        progress: Progress,
        sudo: Sudo,
        known_hosts: Path,
        parallel: int,
    ) -> None:
        self._progress = progress
        self._sudo = sudo
        self._pool = Pool(parallel)
        self._asking = BoundedSemaphore()
        inventory = Inventory(  # type: ignore[no-untyped-call] # pyinfra's
            ([_inventory_entry(one, known_hosts) for one in targets], {})
        )
        config = Config(  # type: ignore[no-untyped-call] # pyinfra's
            CONNECT_TIMEOUT=_CONNECT_TIMEOUT_S, TEMP_DIR=layout.TEMPORARY, PARALLEL=parallel
        )
        self._state = State(inventory, config)
        self._listeners: dict[str, Callable[[str], None]] = {}
        self._said = _Said()
        logging.getLogger("pyinfra").handlers[:] = [self._said]
        logging.getLogger("pyinfra").propagate = False
        hosts = list(inventory)
        self.sites = [Site(target, host) for target, host in zip(targets, hosts, strict=True)]

    def close(self) -> None:
        """Disconnect from every board; passwords laid there are removed."""
        for site in self.sites:
            if site.host.connected:
                with suppress(*_BROKEN):
                    self._sudo.forget(site.host)
                    site.host.disconnect()

    @property
    def alive(self) -> list[Site]:
        """Boards that did not fail so far."""
        return [site for site in self.sites if site.error is None]

    def meet(self, introduce: Callable[[Target], None]) -> None:
        """Call `introduce` for every board reached over SSH."""

        def meet(site: Site) -> None:
            if site.target.address is not None:
                introduce(site.target)

        self.each(meet)

    def connect(self, ask: Callable[[str], str] | None, *, any_board: bool = False) -> None:
        """Connect to every board, become root there, and probe it.

        Args:
            ask: asks for the password of a board that takes no key, one board after the other.
            any_board: whether boards that cannot run an agent are welcome too.
        """
        self._state.set_stage(StateStage.Connect)
        self.each(lambda site: self._connect(site, ask))
        self.each(lambda site: self._probe(site, any_board=any_board))

    def look_again(self) -> None:
        """Probe every connected board again; one that does not answer keeps its last probe."""

        def look(site: Site) -> None:
            if site.host.connected and not self._is_cut(site):
                with suppress(AgentError):
                    self._probe(site, any_board=True)

        self._in_parallel(look, self.sites)

    def watch_again(self) -> None:
        """Probe every board again, unreachable ones too; failures are not reported."""

        def look(site: Site) -> None:
            site.error = None
            try:
                if not site.host.connected or self._is_cut(site):
                    self._reconnect(site)
                self._probe(site, any_board=True)
            except AgentError as error:
                site.error = error
            except _BROKEN as error:
                site.error = self._explain(site, "look", str(error))

        self._in_parallel(look, self.sites)

    def plan(self, task: Callable[[Site], None]) -> None:
        """Let `task` add its steps for every board; nothing is changed yet."""
        self._state.set_stage(StateStage.Prepare)
        self.each(task)
        for site in self.alive:
            site.changed = [step.name for step in site.steps if step.changes]

    def carry_out(self) -> None:
        """Run every board's steps in order, up to its first failure."""
        self._state.set_stage(StateStage.Execute)
        self._state.is_executing = True
        for site in self.alive:
            site.changed = []
        self.each(self._run_steps)

    def run_shell(self, site: Site, command: str, *, root: bool = True) -> tuple[bool, list[str]]:
        """Run one command; returns whether it ended well, and its lines of stdout.

        Raises:
            UnavailableError: the connection was cut.
        """
        try:
            done, output = site.host.run_shell_command(command, **(site.root if root else {}))
        except _BROKEN as error:
            raise failures.lost("run a command") from error
        return done, output.stdout_lines

    def stream(self, site: Site, command: str, write: Callable[[str], None]) -> None:
        """Run one command as root and hand its lines of stdout over as they come.

        Raises:
            AgentError: it failed, or the connection was cut.
        """
        self._listeners[site.host.print_prefix] = write
        output.set_echo(self._hear)
        done, _ = site.host.run_shell_command(command, print_output=True, **site.root)
        if not done:
            raise self._explain(site, "follow the log")

    def _hear(self, message: object = None, **_: object) -> None:
        """Hand a line that pyinfra prints to the listener of the board that its prefix names."""
        line = str(message)
        for prefix, write in self._listeners.items():
            if line.startswith(prefix):
                write(line.removeprefix(prefix))

    def each(self, work: Callable[[Site], None]) -> None:
        """Call `work` for every board that is alive, in parallel; errors stay with their board."""
        self._in_parallel(lambda site: self._guarded(work, site), self.alive)

    def _in_parallel(self, work: Callable[[Site], None], sites: Sequence[Site]) -> None:
        def with_host(site: Site) -> None:
            with ctx_host.use(site.host):
                work(site)

        with ctx_state.use(self._state):
            self._pool.map(with_host, sites)

    def _guarded(self, work: Callable[[Site], None], site: Site) -> None:
        try:
            work(site)
        except AgentError as error:
            site.error = error
        except _BROKEN as error:
            site.error = self._explain(site, "look", str(error))
        if site.error is not None:
            self._progress.failed(site.target.name, site.error)

    def _reconnect(self, site: Site) -> None:
        with suppress(*_BROKEN):
            site.host.disconnect()
        site.root = {}  # a board that was restarted has no password any more
        self._connect(site, None)

    def _connect(self, site: Site, ask: Callable[[str], str] | None) -> None:
        if site.target.address is None:
            site.host.connect()
        else:
            self._connect_ssh(site, ask)
        self._state.activate_host(site.host)

    def _connect_ssh(self, site: Site, ask: Callable[[str], str] | None) -> None:
        try:
            site.host.connect(show_errors=False, raise_exceptions=True)
        except PyinfraError as error:
            if ask is None or not failures.is_refused_login(str(error)):
                raise failures.connecting(str(error)) from error
            with self._asking:
                site.host.connector.data["ssh_password"] = ask(site.target.name)
            self._connect_ssh(site, None)
            return
        transport = getattr(site.host.connector, "client").get_transport()  # noqa: B009 - SSH's only
        transport.set_keepalive(_KEEPALIVE_S)
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)

    def _probe(self, site: Site, *, any_board: bool) -> None:
        if not site.root:
            self._sudo.prepare(site.host)
            site.root = self._sudo.arguments(site.host)
        script = _quote(layout.board_script("probe.sh"))
        done, lines = self.run_shell(site, f"sh -c {script}")
        if not done:
            raise failures.of_step("look", self._said.take(site.host))
        site.probe = Probe.parse(lines)
        try:
            site.board = identify(site.probe, is_here=site.target.address is None)
        except UnsupportedBoardError:
            if not any_board:
                raise

    def _run_steps(self, site: Site) -> None:
        # What needed no change before needs none after the others: they only add.
        for step in (one for one in site.steps if one.changes):
            self._said.take(site.host)
            with self._progress.step(site.target.name, step.name, announce=step.slow) as report:
                report.changed = self._run_step(site, step)
            if report.changed:
                site.changed.append(step.name)

    def _run_step(self, site: Site, step: PlannedStep) -> bool:
        """Run one step; returns whether it changed anything.

        Raises:
            AgentError: it failed, or the connection was cut.
        """
        try:
            done = run_host_op(self._state, site.host, step.op_hash)
        except _BROKEN as error:
            raise self._explain(site, step.name, str(error)) from error
        if not done:
            raise self._explain(site, step.name)
        return self._state.ops[site.host][step.op_hash].operation_meta.did_change()

    def _explain(self, site: Site, step: str, *more: str) -> AgentError:
        if self._is_cut(site):
            return failures.lost(step)
        return failures.of_step(step, [*self._said.take(site.host), *more])

    def _is_cut(self, site: Site) -> bool:
        client = getattr(site.host.connector, "client", None)
        if client is None:
            return False
        transport = client.get_transport()
        return transport is None or not transport.is_active()


class _Said(logging.Handler):
    """Log handler that keeps the output of each board's failed commands."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: dict[str, list[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        name, found, line = text.removeprefix("[").partition("] ")
        if found and not line.lstrip().startswith("Error: executed"):  # pyinfra's own count
            self._lines.setdefault(name, []).append(line)

    def take(self, host: Host) -> list[str]:
        """Return a board's lines since the last call."""
        return self._lines.pop(host.name, [])


def _inventory_entry(target: Target, known_hosts: Path) -> tuple[str, Mapping[str, Any]]:
    if target.address is None:
        return "@local", {}
    data: dict[str, Any] = {
        "ssh_hostname": target.address,
        "ssh_known_hosts_file": str(known_hosts),
        "ssh_strict_host_key_checking": "yes",
    }
    optional = {"ssh_user": target.user, "ssh_port": target.port}
    data |= {key: value for key, value in optional.items() if value is not None}
    if target.key is not None:
        data["ssh_key"] = str(target.key)
    return target.name, data


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"

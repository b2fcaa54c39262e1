"""Defines the commands that work on boards; nothing else in provisioning prints, asks or exits."""

from __future__ import annotations

import getpass
import json
import signal
import sys
import traceback
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import gevent
import typer
from gevent.lock import BoundedSemaphore

from fer_agent.config.model import PERMITTED_CONTEXTS
from fer_agent.errors import AgentError, UsageError
from fer_provisioning import deploy, host_keys, remote
from fer_provisioning.bundle import Bundler
from fer_provisioning.fleet import Fleet
from fer_provisioning.progress import Outcome, Progress, exit_code, summary
from fer_provisioning.reach import Reach, on_boards
from fer_provisioning.sudo import Sudo
from fer_provisioning.targets import flatten

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_provisioning.fleet import Site

MQTT_SECRET = "mqtt-password"  # noqa: S105 - a credential's name, not its value

_BUG = 70

app = typer.Typer(
    name="fer-agent",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only list what would change.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
WheelOption = Annotated[Path | None, typer.Option(help="The agent's wheel to install.")]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Copy every package; the board needs no internet.")
]
ReinstallOption = Annotated[
    bool, typer.Option("--reinstall", help="Make the environment anew even if it is there.")
]
AptWaitOption = Annotated[int, typer.Option(min=0, help="Seconds to wait for apt's lock.")]


def main() -> None:
    """Run the command line; errors become one sentence, one remedy and their exit code."""
    try:
        app(prog_name="fer-agent")
    except AgentError as error:
        typer.echo(f"fer-agent: {error}", err=True)
        typer.echo(f"  {error.remedy}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("fer-agent: stopped; run the same command again to go on", err=True)
        sys.exit(130)
    except Exception:  # noqa: BLE001 - process boundary: the traceback is shown, the exit says bug
        traceback.print_exc()
        typer.echo("fer-agent: this is a bug; please report the lines above", err=True)
        sys.exit(_BUG)


@on_boards(app)
def install(
    reach: Reach,
    *,
    wheel: WheelOption = None,
    offline: OfflineOption = False,
    config: Annotated[Path | None, typer.Option(help="Configuration file to lay down.")] = None,
    context: Annotated[
        str | None, typer.Option(help="Where the boards are used: home, research, …")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Camera device of the camera `main`.")] = None,
    broker: Annotated[str | None, typer.Option(help="mqtt:// or mqtts:// address.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value over the configuration; the value as in TOML."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: a file to install as systemd credential."),
    ] = None,
    reinstall: ReinstallOption = False,
    apt_wait: AptWaitOption = deploy.APT_WAIT_S,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Install the agent as a service on this machine, one board or many; again changes nothing."""
    given = _settings(context, source, broker, set_)
    secrets = dict(_pair(one, "--secret NAME=FILE") for one in secret or ())
    targets = [
        replace(
            one,
            config=config or one.config,
            settings={**one.settings, **given},
            secrets={**one.secrets, **{name: Path(path) for name, path in secrets.items()}},
        )
        for one in reach.targets
    ]
    reach = replace(reach, targets=targets)
    bundler = Bundler(wheel=wheel, offline=offline, say=_say)
    with _opened(reach) as fleet, closing(bundler), TemporaryDirectory() as folder:
        if reach.ask:
            _answer(fleet, Path(folder))
        read = partial(remote.read_file, fleet)
        job = deploy.DeployJob(bundler, offline, reinstall, apt_wait, read)
        fleet.plan(partial(deploy.install, job=job))
        _finish(fleet, "installed", reach, dry_run=dry_run, as_json=as_json)


@on_boards(app)
def upgrade(
    reach: Reach,
    *,
    wheel: WheelOption = None,
    offline: OfflineOption = False,
    reinstall: ReinstallOption = False,
    apt_wait: AptWaitOption = deploy.APT_WAIT_S,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Install a new version; one that does not come up healthy in a minute is taken back."""
    bundler = Bundler(wheel=wheel, offline=offline, say=_say)
    with _opened(reach) as fleet, closing(bundler):
        read = partial(remote.read_file, fleet)
        job = deploy.DeployJob(bundler, offline, reinstall, apt_wait, read)
        fleet.plan(partial(deploy.upgrade, job=job))
        _finish(fleet, "upgraded", reach, dry_run=dry_run, as_json=as_json)


@on_boards(app)
def uninstall(
    reach: Reach,
    *,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove models, spool and the user too.")
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove service, program and configuration, and with --purge everything."""
    with _opened(reach, any_board=True) as fleet:
        fleet.plan(partial(deploy.uninstall, purge=purge))
        _finish(fleet, "removed", reach, dry_run=dry_run, as_json=as_json)


@on_boards(app)
def status(
    reach: Reach,
    *,
    follow: Annotated[
        bool | None,
        typer.Option(
            "--follow/--once",
            "-f",
            help="Draw the table again every five seconds; an inventory's in a terminal is.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show each board's service: state, version, restarts, last error."""
    live = sys.stdout.isatty() and not as_json
    if follow is None:
        follow = live and reach.strict
    with _opened(reach, any_board=True) as fleet:
        with _until_interrupted() if follow else nullcontext():
            remote.show_status(
                fleet, follow=follow, clear=follow and live, as_json=as_json, write=typer.echo
            )
        outcomes = _outcomes(fleet, "seen")
    sys.exit(exit_code(outcomes) or int(not remote.all_run(fleet)))


@on_boards(app)
def logs(
    reach: Reach,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Last lines to show.")] = 50,
) -> None:
    """Show the service's log."""
    with _opened(reach, any_board=True) as fleet:
        with _until_interrupted() if follow else nullcontext():
            remote.show_logs(fleet, follow=follow, lines=lines, write=typer.echo)
        sys.exit(exit_code(_outcomes(fleet, "seen")))


@on_boards(app)
def doctor(
    reach: Reach,
    *,
    as_json: JsonOption = False,
) -> None:
    """Run `fer-agent doctor` on boards."""
    with _opened(reach) as fleet:
        findings = remote.show_doctor(fleet, as_json=as_json, write=typer.echo)
        sys.exit(exit_code(_outcomes(fleet, "seen")) or int(findings))


@contextmanager
def _opened(reach: Reach, *, any_board: bool = False) -> Iterator[Fleet]:
    """Connect to the boards; those that cannot be reached have failed already."""
    fleet = Fleet(
        reach.targets,
        progress=Progress(_say),
        sudo=Sudo(_sudo_password(reach)),
        known_hosts=reach.known_hosts,
        parallel=reach.parallel,
    )
    asking = BoundedSemaphore()

    def confirm(question: str) -> bool:
        with asking:
            return typer.confirm(question, err=True)

    may_ask = reach.ask and not reach.strict
    try:
        fleet.meet(
            lambda target: host_keys.ensure_known(
                target, reach.known_hosts, confirm if may_ask else None
            )
        )
        fleet.connect(_login_password if reach.ask else None, any_board=any_board)
        yield fleet
    finally:
        fleet.close()


@contextmanager
def _until_interrupted() -> Iterator[None]:
    """End the block quietly at Ctrl-C, which may arrive in any board's greenlet."""
    main_, loop = gevent.getcurrent(), gevent.get_hub().loop
    watcher = gevent.signal_handler(
        signal.SIGINT, loop.run_callback, main_.throw, KeyboardInterrupt
    )
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        watcher.cancel()


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _sudo_password(reach: Reach) -> Callable[[], str] | None:
    if (path := reach.sudo_password_file) is not None:
        if not path.is_file():
            raise UsageError(f"{path} is not there", remedy="correct --sudo-password-file")
        return lambda: path.read_text(encoding="utf-8").rstrip("\r\n")
    return partial(getpass.getpass, "sudo password (asked once): ") if reach.ask else None


def _login_password(name: str) -> str:
    return getpass.getpass(f"{name} takes no key of yours. Password: ")


def _settings(
    context: str | None, source: str | None, broker: str | None, more: list[str] | None
) -> dict[str, Any]:
    given = {
        "deployment.context": context,
        "camera.main.source": source,
        "mqtt.broker": broker,
    }
    settings_ = {name: value for name, value in given.items() if value is not None}
    for text in more or ():
        name, value = _pair(text, "--set key=value")
        try:
            settings_ |= dict(flatten({name: tomllib.loads(f"value = {value}")["value"]}))
        except tomllib.TOMLDecodeError:
            settings_[name] = value  # a bare word is text; the schema says if it should not be
    return settings_


def _pair(text: str, form: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not (name and found):
        raise UsageError(f"{text!r} has no name and value", remedy=f"write {form}")
    return name, value


def _answer(fleet: Fleet, folder: Path) -> None:
    """Ask for the settings of a new board, once for all boards without a configuration.

    Args:
        fleet: connected boards.
        folder: a private one, for the broker's password.
    """
    new = [
        site
        for site in fleet.alive
        if not site.target.config
        and not site.probe.get("config_sha256")
        and "deployment.context" not in site.target.settings
    ]
    if not new:
        return
    usual = next(site.board.camera for site in new if site.board)
    answers: dict[str, Any] = {
        "deployment.context": typer.prompt(
            f"Where is it used ({', '.join(PERMITTED_CONTEXTS)})", default="home", err=True
        ),
        "camera.main.source": typer.prompt("Camera", default=usual, err=True),
        "mqtt.broker": typer.prompt("MQTT broker", default="mqtt://127.0.0.1:1883", err=True),
    }
    secrets: dict[str, Path] = {}
    if user := typer.prompt("MQTT user (none)", default="", show_default=False, err=True):
        (folder / MQTT_SECRET).write_text(getpass.getpass("MQTT password: "), encoding="utf-8")
        answers |= {"mqtt.username": user, "mqtt.password_file": MQTT_SECRET}
        secrets[MQTT_SECRET] = folder / MQTT_SECRET
    for site in new:
        site.target = replace(
            site.target,
            settings={**answers, **site.target.settings},
            secrets={**secrets, **site.target.secrets},
        )


def _finish(fleet: Fleet, done: str, reach: Reach, *, dry_run: bool, as_json: bool) -> None:
    """Carry the plan out, or only show it; print the summary and exit by it."""
    planned = [(site.target.name, name) for site in fleet.alive for name in site.changed]
    state = done
    if dry_run:
        state = "would change"
        for host, name in planned:
            typer.echo(f"{host}: would {name}", err=True)
    elif planned and reach.ask:
        for host, name in planned:
            typer.echo(f"{host}: will {name}", err=True)
        typer.confirm("Go on?", default=True, abort=True, err=True)
    if not dry_run:
        fleet.carry_out()
        fleet.look_again()
    outcomes = _outcomes(fleet, state)
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, "hosts": [one.as_json() for one in outcomes]}))
    else:
        typer.echo(summary(outcomes))
        for one in outcomes:
            if one.state == "unchanged":
                typer.echo(f"{one.name}: nothing to change", err=True)
    sys.exit(exit_code(outcomes))


def _outcomes(fleet: Fleet, done: str) -> list[Outcome]:
    return [_outcome(site, done) for site in fleet.sites]


def _outcome(site: Site, done: str) -> Outcome:
    state = done if site.changed else "unchanged"
    if site.error is not None:
        state = "failed"
    return Outcome(
        name=site.target.name,
        state=state,
        board="" if site.board is None else site.board.name,
        version=site.version,
        changes=tuple(site.changed),
        error=site.error,
    )

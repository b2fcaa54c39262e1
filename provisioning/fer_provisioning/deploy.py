"""Plans the steps that install, upgrade and remove an agent, on this machine and over SSH.

Every step looks first and changes only what differs. The probe answers what no stock operation can
look at: complete releases, and the stamp of what the service was started with.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from pyinfra.operations import apt, files, server, systemd

from fer_agent.errors import ConfigError, UnavailableError, UsageError
from fer_provisioning import layout, settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_provisioning.board import TargetBoard
    from fer_provisioning.bundle import AgentRelease, Bundler
    from fer_provisioning.fleet import Site
    from fer_provisioning.settings import ConfigFile

APT_WAIT_S = 120
"""A new card updates itself after its first boot and holds apt's lock for a minute or two."""

_MIB = 1 << 20

_AGAIN = "~"
"""Between a release's id and the number of its remake."""


@dataclass(frozen=True, slots=True)
class DeployJob:
    """The settings of one run for all its boards.

    Attributes:
        bundler: makes the release for each kind of board.
        offline: the board fetches nothing itself.
        reinstall: make the release again even when it is there.
        apt_wait_s: how long to wait for apt's lock, in seconds.
        read: reads a file on the board as root.
    """

    bundler: Bundler
    offline: bool
    reinstall: bool
    apt_wait_s: int
    read: Callable[[Site, str], str]


def install(site: Site, job: DeployJob) -> None:
    """Plan everything: system packages, user, release, configuration, service."""
    existing = job.read(site, layout.CONFIG) if site.probe.get("config_sha256") else None
    config = settings.for_target(site.target, existing, camera=_board(site).camera)
    _check_secrets(site, config)
    release = _choose_release(site, job)
    _system(site, job)
    _release(site, job, release)
    _configuration(site, config)
    _activate(site, release, config.sha256)


def upgrade(site: Site, job: DeployJob) -> None:
    """Plan a new release over an installed agent; configuration and data stay as they are."""
    if not site.probe.current_release:
        raise UsageError("no agent is installed there", remedy="run `fer-agent install` first")
    release = _choose_release(site, job)
    _system(site, job)
    _release(site, job, release)
    _activate(site, release, site.probe.get("config_sha256"))


def uninstall(site: Site, *, purge: bool) -> None:
    """Plan the removal of everything but data, and with `purge` of that and the user too."""
    if site.probe.get("active") or site.probe.current_release:
        for unit in (layout.SYNC_TIMER, layout.SYNC_UNIT, layout.UNIT):
            site.add(f"stop {unit}", systemd.service, unit, running=False, enabled=False)
    for unit in (layout.SYNC_TIMER, layout.SYNC_UNIT, layout.UNIT):
        site.add(f"remove {unit}", files.file, f"{layout.UNIT_FOLDER}/{unit}", present=False)
    for folder in (layout.DROPINS, f"{layout.UNIT_FOLDER}/{layout.SYNC_UNIT}.d"):
        site.add("remove drop-ins", files.directory, folder, present=False)
    if any(step.changes for step in site.steps):
        forget = f"systemctl reset-failed {layout.UNIT} {layout.SYNC_UNIT} 2>&1; true"
        site.add("tell systemd", server.shell, commands=[f"systemctl daemon-reload; {forget}"])
    site.add("remove the command", files.link, layout.COMMAND, present=False)
    site.add("remove the configuration", files.directory, layout.CONFIG_FOLDER, present=False)
    if purge:
        site.add("remove models and spool", files.directory, layout.STATE, present=False)
        site.add("remove the user", server.user, layout.USER, present=False)
    # Last: on the board itself it is the program that runs here.
    site.add("remove the program", files.directory, layout.PREFIX, present=False)


def _system(site: Site, job: DeployJob) -> None:
    board = _board(site)
    if not site.probe.get("python_venv"):
        raise UnavailableError(
            "its python3 lacks the venv module", remedy="run `sudo apt-get install python3` there"
        )
    missing = [name for word, name in board.apt_packages.items() if not site.probe.get(word)]
    if missing and job.offline:
        raise UnavailableError(
            f"{', '.join(missing)} is missing, and --offline installs no system packages",
            remedy="use an image that has it (Raspberry Pi OS with desktop), or run "
            f"`sudo apt-get install {' '.join(missing)}` there while it is online",
        )
    if missing:
        site.add(
            f"install {', '.join(missing)}",
            apt.packages,
            missing,
            update=True,
            cache_time=3600,
            no_recommends=True,
            extra_install_args=f"-o DPkg::Lock::Timeout={job.apt_wait_s}",
        )
    for group in board.groups:
        site.add(f"create the group {group}", server.group, group, system=True)
    site.add(  # noqa: S604 - `shell` is the user's login shell
        "create the user fer-agent",
        server.user,
        layout.USER,
        home=layout.STATE,
        shell="/usr/sbin/nologin",
        system=True,
        create_home=False,
        ensure_home=False,
    )
    for path in (layout.PREFIX, layout.RELEASES):
        site.add(f"create {path}", files.directory, path, user="root", group="root", mode="755")
    # Commands run by hand share this folder with the service: it is the default model store.
    site.add(
        f"create {layout.STATE}",
        files.directory,
        layout.STATE,
        user=layout.USER,
        group=layout.USER,
        mode="755",
    )


def _choose_release(site: Site, job: DeployJob) -> AgentRelease:
    """Return the release to run: one that is there already, or a new one.

    A release that is made again gets a number behind its id, so that the old one stays whole.
    """
    release = job.bundler.release(_board(site))
    there = [one for one in site.probe.releases if one.partition(_AGAIN)[0] == release.id]
    if not there:
        return release
    if job.reinstall:
        fresh = (f"{release.id}{_AGAIN}{number}" for number in count(2))
        return replace(release, id=next(one for one in fresh if one not in there))
    current = site.probe.current_release
    return replace(release, id=current if current in there else there[-1])


def _release(site: Site, job: DeployJob, release: AgentRelease) -> None:
    if release.id in site.probe.releases:
        return
    board = _board(site)
    bundle = job.bundler.bundle(board)
    what = f"fer-agent {release.version}"
    _check_space(site.probe.number("free_kib"), bundle.needed_bytes, what)
    if site.target.address is not None:
        what = f"copying it to {layout.TEMPORARY}"
        _check_space(site.probe.number("free_uploads_kib"), bundle.archive_bytes, what)
    folder = f"{layout.RELEASES}/{release.id}"
    archive = f"{layout.PREFIX}/incoming.tar"
    site.add(f"copy fer-agent {release.version}", files.put, str(bundle.archive), archive)
    site.add_script(
        "create the Python environment",
        "create_release.sh",
        folder,
        archive,
        "yes" if board.system_site_packages else "no",
    )
    site.add_script(
        "install packages",
        "install_packages.sh",
        folder,
        board.extras,
        "yes" if job.offline else "no",
    )
    site.add_script("import each package", "check_imports.sh", folder, *board.modules)


def _check_space(free_kib: int, needed_bytes: int, what: str) -> None:
    if free_kib * 1024 < needed_bytes:
        raise UnavailableError(
            f"the disk is full: {free_kib // 1024} MiB are free, {what} needs "
            f"{needed_bytes // _MIB} MiB",
            remedy="free some space (`sudo apt-get clean`, `journalctl --vacuum-size=50M`)",
        )


def _configuration(site: Site, config: ConfigFile) -> None:
    site.add(
        f"create {layout.CONFIG_FOLDER}",
        files.directory,
        layout.CONFIG_FOLDER,
        user="root",
        group=layout.USER,
        mode="750",
    )
    site.add(
        "write the configuration",
        files.put,
        io.StringIO(config.text),
        layout.CONFIG,
        user="root",
        group=layout.USER,
        mode="640",
    )
    site.add(
        "create the folder of secrets",
        files.directory,
        layout.CREDENTIALS,
        user="root",
        group="root",
        mode="700",
    )
    for name, path in sorted(site.target.secrets.items()):
        site.add(
            f"write the secret {name}",
            files.put,
            io.BytesIO(path.read_bytes()),
            f"{layout.CREDENTIALS}/{name}",
            user="root",
            group="root",
            mode="600",
        )
    site.add(
        "hand the secrets to the service",
        files.put,
        io.StringIO(_credentials_dropin(site)),
        f"{layout.DROPINS}/20-credentials.conf",
        user="root",
        group="root",
        mode="644",
    )


def _activate(site: Site, release: AgentRelease, config_sha256: str) -> None:
    site.add(
        f"link {layout.COMMAND}",
        files.link,
        layout.COMMAND,
        target=f"{layout.VENV}/bin/fer-agent",
    )
    secrets = site.probe.secrets | {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in site.target.secrets.items()
    }
    parts = repr((release.id, config_sha256, sorted(secrets.items())))
    stamp = hashlib.sha256(parts.encode()).hexdigest()
    runs = site.probe.get("active") == "active" and site.probe.current_release == release.id
    if stamp != site.probe.get("stamp") or not runs:
        name = f"start the service with {release.version} and see it healthy"
        site.add_script(name, "activate.sh", f"{layout.RELEASES}/{release.id}", stamp)


def _credentials_dropin(site: Site) -> str:
    names = sorted({*site.probe.secrets, *site.target.secrets})
    lines = [f"LoadCredential={name}:{layout.CREDENTIALS}/{name}" for name in names]
    return "\n".join(["# Written by `fer-agent install`.", "[Service]", *lines]) + "\n"


def _check_secrets(site: Site, config: ConfigFile) -> None:
    for path in site.target.secrets.values():
        if not path.is_file():
            raise UsageError(f"the secret's file {path} is not there", remedy="correct its path")
    known = site.probe.secrets | dict(site.target.secrets)
    if missing := settings.missing_secret(config.config, known):
        raise ConfigError(
            f"`mqtt.password_file` names the credential {missing!r}, which nobody gave",
            remedy=f"give it with --secret {missing}=FILE",
        )


def _board(site: Site) -> TargetBoard:
    if site.board is None:
        raise UnavailableError("the board was not looked at", remedy="report this as a bug")
    return site.board

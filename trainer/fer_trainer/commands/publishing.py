"""Options, prompts and the steps from a change to its publication, for the publishing commands."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from fer_trainer.publish.passwords import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fer_trainer.publish.changes import MetadataChange
    from fer_trainer.publish.passwords import PasswordSource
    from fer_trainer.publish.repository import PublishedRepository
    from fer_trainer.publish.roles import RoleName
    from fer_trainer.publish.signing import SigningPlan
    from fer_trainer.publish.staging import StagingArea

RepositoryOption = Annotated[
    Path, typer.Option("--repository", help="Folder that a web server serves.")
]
KeysOption = Annotated[
    list[Path], typer.Option("--keys", help="Folder of private keys. May be repeated.")
]
PasswordOption = Annotated[
    Optional[list[Path]],  # noqa: UP045  # Typer on Python 3.10 wants it spelt out
    typer.Option(
        "--password-file",
        envvar=VARIABLE,
        help="File with the password of offline keys in its first line. May be repeated.",
    ),
]
OutOption = Annotated[
    Optional[Path],  # noqa: UP045  # as above
    typer.Option("--out", help="Write the signed change here instead, for other keys to sign."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be signed; write nothing.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Sign without asking.")]
ExpiresOption = Annotated[
    Optional[list[str]],  # noqa: UP045  # as above
    typer.Option("--expires", help="Days of validity, as timestamp=7. May be repeated."),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of every command that signs.

    Attributes:
        folder: the repository.
        keys: folders of private keys.
        passwords: files that hold passwords.
        out: where a change goes that others still have to sign.
        dry_run: only say what would be done.
        yes: do not ask before signing.
    """

    folder: Path
    keys: Sequence[Path]
    passwords: Sequence[Path] = ()
    out: Path | None = None
    dry_run: bool = False
    yes: bool = False

    @property
    def publishes(self) -> bool:
        """True when the repository's folder is written."""
        return not self.dry_run and self.out is None


def utc_now() -> datetime:
    """Return the time that signatures are dated by."""
    return datetime.now(timezone.utc)


def open_staging(asked: Asked, stack: ExitStack) -> StagingArea | None:
    """Lock the repository for a command that writes it; None for one that does not."""
    from fer_trainer.publish import staging

    return stack.enter_context(staging.open_area(asked.folder)) if asked.publishes else None


def carry_out(
    asked: Asked,
    make: Callable[[PublishedRepository, datetime], MetadataChange | None],
    *,
    renews_root: bool = False,
) -> PublishedRepository | None:
    """Read the repository, make a change of it and bring it to its end.

    Args:
        asked: the command's options.
        make: the change; None when there is nothing to do.
        renews_root: whether the change ends an expired root.

    Returns:
        The repository as published afterwards; None when nothing was written there.

    Raises:
        AgentError: as in `finish`; the repository does not verify or its root has expired.
    """
    from fer_trainer.publish import repository

    now = utc_now()
    # Asked first: the staging area makes the folder, and a wrong name must not leave one.
    if not repository.exists(asked.folder):
        repository.read(asked.folder)
    with ExitStack() as stack:
        area = open_staging(asked, stack)
        before = repository.read(asked.folder)
        if not renews_root:
            before.require_valid_root(now)
        change = make(before, now)
        if change is None:
            typer.echo("all of this is published already; nothing to do")
            return None
        return finish(asked, area, before, change, now)


def finish(
    asked: Asked,
    area: StagingArea | None,
    before: PublishedRepository | None,
    change: MetadataChange,
    now: datetime,
) -> PublishedRepository | None:
    """Explain a change, sign it, and publish it or write it for others to sign.

    Raises:
        ThresholdError: too few keys are here.
        KeyFileError: a key cannot be read or decrypted.
        AgentError: as in `publication.publish`.
    """
    from fer_trainer.publish import keys, pending, publication, signing

    if before is not None:
        publication.check_contents(before, change.contents)
    root = before.root.signed if before is not None else None
    keyring = signing.Keyring(keys.find(asked.keys), password_source(asked.passwords))
    chosen = signing.plans(change, root, keyring.files)
    explain(change, before, chosen, now)
    if asked.out is None:
        for role, metadata in change.parts:
            chosen[role].require_complete(f"{role} {metadata.signed.version}")
        publication.require_online_keys(before, change, keyring, now)
    if asked.dry_run:
        typer.echo("a dry run: nothing was signed, nothing was written")
        return None
    confirm(asked)
    signing.sign(change, root, keyring)
    if asked.out is not None:
        pending.write(asked.out, change, before.root if before is not None else None)
        typer.echo(
            f"{asked.out} holds the change: `fer-train publish sign` adds signatures where other "
            "keys are, `fer-train publish apply` publishes it"
        )
        return None
    if area is None:
        raise ValueError("publishing needs the staging area")
    after = publication.publish(area, before, change, keyring, now)
    versions = ", ".join(f"{role} {version}" for role, version in after.versions.items())
    typer.echo(f"{asked.folder} now holds {versions}")
    remind(after, now)
    return after


def explain(
    change: MetadataChange,
    before: PublishedRepository | None,
    chosen: Mapping[RoleName, SigningPlan],
    now: datetime,
) -> None:
    """Print what a change signs, and with which of the keys that are here."""
    from fer_trainer.publish import summary

    typer.echo(f"to {change.title}, this is signed:")
    for line in summary.describe(change, before, chosen, now):
        typer.echo(f"  {line}")


def confirm(asked: Asked) -> None:
    """Ask a person before anything is signed.

    Raises:
        typer.Abort: the answer is no.
    """
    if not asked.yes and sys.stdin.isatty():
        typer.confirm("Sign this?", abort=True)


def password_source(files: Sequence[Path]) -> PasswordSource:
    """Take passwords from files, else from the person at the terminal."""
    from fer_trainer.publish.passwords import PasswordSource

    def ask(label: str, fresh: bool) -> str:
        text = f"Password {'for the new' if fresh else 'of the'} key {label}"
        return str(typer.prompt(text, hide_input=True, confirmation_prompt=fresh, err=True))

    return PasswordSource(files, ask if sys.stdin.isatty() and not files else None)


def remind(after: PublishedRepository, now: datetime) -> None:
    """Print the repository's faults and reminders on stderr."""
    from fer_trainer.publish import summary

    for line in (*summary.faults(after, now), *summary.reminders(after, now)):
        typer.echo(f"note: {line}", err=True)

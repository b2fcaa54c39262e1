"""The commands of `fer-train publish`, which sign a repository of models."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from fer_agent.errors import FindingsError, UsageError
from fer_trainer.commands.publishing import (
    Asked,
    DryRunOption,
    ExpiresOption,
    KeysOption,
    OutOption,
    PasswordOption,
    RepositoryOption,
    YesOption,
    carry_out,
    finish,
    open_staging,
    password_source,
    utc_now,
)

if TYPE_CHECKING:
    from datetime import datetime

    from securesystemslib.signer import SSlibKey

    from fer_trainer.publish.changes import MetadataChange
    from fer_trainer.publish.repository import PublishedRepository
    from fer_trainer.publish.roles import RoleName

app = typer.Typer(
    help="Sign models and lay them into a folder that any web server can serve.",
    no_args_is_help=True,
)

_ONLINE_FOLDER = "online"


@app.command()
def init(
    *,
    repository: RepositoryOption,
    keys: KeysOption,
    online_keys: Annotated[
        Optional[Path],  # noqa: UP045  # Typer on Python 3.10 wants it spelt out
        typer.Option(help="Folder for the keys of snapshot and timestamp; KEYS/online by default."),
    ] = None,
    root_keys: Annotated[int, typer.Option(min=0, help="Root keys to make here.")] = 1,
    targets_keys: Annotated[int, typer.Option(min=0, help="Targets keys to make here.")] = 1,
    public_keys: Annotated[
        Optional[list[str]],  # noqa: UP045  # as above
        typer.Option("--public-key", help="A key made elsewhere, as root=FILE.pub.pem."),
    ] = None,
    thresholds: Annotated[
        Optional[list[str]],  # noqa: UP045  # as above
        typer.Option("--threshold", help="How many keys must sign, as root=2."),
    ] = None,
    expires: ExpiresOption = None,
    password_files: PasswordOption = None,
    out: OutOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Make keys and start an empty repository.

    Keys of root and targets are encrypted and belong on media that lie in a drawer; those of
    snapshot and timestamp sign unattended and are not encrypted.
    """
    from fer_trainer.publish import changes, roles
    from fer_trainer.publish import keys as key_files
    from fer_trainer.publish import repository as repositories
    from fer_trainer.publish.errors import RepositoryError
    from fer_trainer.publish.key_making import key_maker

    if repositories.exists(repository):
        raise RepositoryError(
            f"there is a repository in {repository} already",
            remedy="add to it with `fer-train publish add`, or name an empty folder",
        )
    expiry = roles.parse_expiry(expires)
    signers: dict[RoleName, list[SSlibKey]] = {role: [] for role in roles.ROLES}
    for text in public_keys or ():
        role, equals, name = text.partition("=")
        if not equals:
            raise UsageError(
                f"--public-key {text!r} names no role", remedy="write --public-key root=FILE"
            )
        signers[roles.parse_role(role)].append(key_files.read_public(Path(name)))
    asked = Asked(repository, keys, password_files or (), out, dry_run, yes)
    online = online_keys or keys[0] / _ONLINE_FOLDER
    source = password_source(asked.passwords)
    with key_maker(keys, [keys[0], online], source, dry_run=dry_run) as maker:
        for number in range(1, root_keys + 1):
            signers["root"].append(maker.make(f"root-{number}", keys[0], secret=True))
        for number in range(1, targets_keys + 1):
            signers["targets"].append(maker.make(f"targets-{number}", keys[0], secret=True))
        signers["snapshot"] = signers["snapshot"] or [maker.make("snapshot-1", online)]
        signers["timestamp"] = signers["timestamp"] or [maker.make("timestamp-1", online)]
        change = changes.begin(signers, roles.parse_thresholds(thresholds), expiry, utc_now())
        with ExitStack() as stack:
            area = open_staging(asked, stack)
            after = finish(replace(asked, keys=maker.folders), area, None, change, utc_now())
    if after is not None:
        typer.echo(
            f"devices trust this repository through {repository / 'metadata' / '1.root.json'}: "
            "put it on them and name it in `models.root_file`"
        )


@app.command()
def add(
    *,
    folders: Annotated[list[Path], typer.Argument(help="Model folders, each with its manifest.")],
    repository: RepositoryOption,
    keys: KeysOption,
    minimum_agent_version: Annotated[
        Optional[str],  # noqa: UP045  # as above
        typer.Option(help="Oldest agent that can run it; the first that reads its manifest."),
    ] = None,
    password_files: PasswordOption = None,
    out: OutOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Verify model folders and publish them as new versions."""
    from fer_trainer.publish import changes, releases

    least = minimum_agent_version or releases.FIRST_AGENT
    checked = [releases.check(folder, minimum_agent_version=least) for folder in folders]
    carry_out(
        Asked(repository, keys, password_files or (), out, dry_run, yes),
        lambda before, now: changes.add(before, checked, now),
    )


@app.command()
def retire(
    *,
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[str, typer.Argument(help="Its version, as 1.0.0.")],
    repository: RepositoryOption,
    keys: KeysOption,
    delete: Annotated[
        bool, typer.Option("--delete", help="Also delete the files of all retired versions.")
    ] = False,
    password_files: PasswordOption = None,
    out: OutOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Take a version of a model off the list; devices that run it keep it."""
    from fer_trainer.publish import changes, publication

    after = carry_out(
        Asked(repository, keys, password_files or (), out, dry_run, yes),
        lambda before, now: changes.retire(before, name, version, now),
    )
    if after is not None and delete:
        for path in publication.delete_retired(after):
            typer.echo(f"deleted {path}")


@app.command()
def rotate(
    *,
    role: Annotated[str, typer.Argument(help="root, targets, snapshot or timestamp.")],
    repository: RepositoryOption,
    keys: KeysOption,
    new: Annotated[
        Optional[list[str]],  # noqa: UP045  # as above
        typer.Option("--new", help="Make a key of this name here. May be repeated."),
    ] = None,
    add: Annotated[
        Optional[list[Path]],  # noqa: UP045  # as above
        typer.Option("--add", help="Public key made elsewhere (.pub.pem). May be repeated."),
    ] = None,
    remove: Annotated[
        Optional[list[str]],  # noqa: UP045  # as above
        typer.Option("--remove", help="Name or id of a key that no longer signs."),
    ] = None,
    threshold: Annotated[
        Optional[int],  # noqa: UP045  # as above
        typer.Option(min=1, help="How many keys must sign from now on."),
    ] = None,
    online_keys: Annotated[
        Optional[Path],  # noqa: UP045  # as above
        typer.Option(help="Folder for a new online key; KEYS/online by default."),
    ] = None,
    expires: ExpiresOption = None,
    password_files: PasswordOption = None,
    out: OutOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Change a role's keys, how many must sign, or how long signatures are valid.

    Signed by the root keys; a change of root's own keys by the old and the new ones.
    """
    from fer_trainer.publish import changes, roles
    from fer_trainer.publish import keys as key_files
    from fer_trainer.publish.key_making import key_maker

    chosen = roles.parse_role(role)
    if not (new or add or remove or threshold or expires):
        raise UsageError(
            "nothing is to be changed", remedy="use --new, --add, --remove, --threshold, --expires"
        )
    asked = Asked(repository, keys, password_files or (), out, dry_run, yes)
    secret = chosen in roles.OFFLINE
    place = keys[0] if secret else online_keys or keys[0] / _ONLINE_FOLDER
    coming = [key_files.read_public(path) for path in add or ()]

    source = password_source(asked.passwords)
    with key_maker(keys, [] if secret or not new else [place], source, dry_run=dry_run) as maker:

        def make(before: PublishedRepository, now: datetime) -> MetadataChange:
            gone = tuple(
                changes.key_named(before.root.signed, chosen, text) for text in remove or ()
            )
            made = [maker.make(label, place, secret=secret) for label in new or ()]
            rotation = changes.Rotation(chosen, (*coming, *made), gone, threshold)
            expiry = roles.parse_expiry(expires, before.expiry)
            return changes.rotate(before, rotation, now, expiry)

        carry_out(replace(asked, keys=maker.folders), make, renews_root=True)


@app.command()
def refresh(
    *,
    repository: RepositoryOption,
    keys: KeysOption,
    also: Annotated[
        Optional[list[str]],  # noqa: UP045  # as above
        typer.Option("--also", help="Renew root or targets as well, with their offline keys."),
    ] = None,
    password_files: PasswordOption = None,
    out: OutOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Renew the timestamp, and the snapshot when half its time is over; made for a timer.

    Needs the online keys only. Also finishes a publication that was cut short.
    """
    from fer_trainer.publish import changes, roles, summary

    renewed = [roles.parse_role(text) for text in also or ()]
    for role in renewed:
        if role not in roles.OFFLINE:
            raise UsageError(f"{role} is renewed anyway", remedy="leave --also out")
    after = carry_out(
        Asked(repository, keys, password_files or (), out, dry_run, yes or not renewed),
        lambda before, now: changes.renew(before, renewed, now),
        renews_root="root" in renewed,
    )
    if after is not None and (found := summary.faults(after, utc_now())):
        raise FindingsError(
            found[0], remedy="see docs/model-updates.md; until then devices refuse it"
        )


@app.command()
def key(
    *,
    name: Annotated[str, typer.Argument(help="What people call the key, as root-anna.")],
    keys: Annotated[Path, typer.Option("--keys", help="Folder that receives the key pair.")],
    password_files: PasswordOption = None,
) -> None:
    """Make a key pair on this machine, for a repository that is started or rotated elsewhere."""
    from fer_trainer.publish import keys as key_files

    if (keys / f"{name}.pem").exists():
        raise UsageError(f"{keys / name}.pem is there already", remedy="take another name")
    made = key_files.generate(keys, name, password_source(password_files or ()))
    typer.echo(f"{keys / name}.pem is the private key: keep it here, with its password elsewhere")
    typer.echo(f"{keys / name}.pub.pem is the public key {made.keyid[:8]}: hand it on")


@app.command()
def sign(
    *,
    pending: Annotated[Path, typer.Argument(help="Folder that was written with --out.")],
    keys: KeysOption,
    repository: Annotated[
        Optional[Path],  # noqa: UP045  # as above
        typer.Option(help="A copy of the repository, to be told only what changes."),
    ] = None,
    password_files: PasswordOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Add the signatures of the keys that are here to a change made elsewhere."""
    from fer_trainer.commands.publishing import confirm, explain
    from fer_trainer.publish import keys as key_files
    from fer_trainer.publish import pending as pending_changes
    from fer_trainer.publish import repository as repositories
    from fer_trainer.publish import signing
    from fer_trainer.publish.errors import ThresholdError

    change, base = pending_changes.read(pending)
    before = repositories.read(repository) if repository is not None else None
    previous = before.root.signed if before else base.signed if base else None
    keyring = signing.Keyring(key_files.find(keys), password_source(password_files or ()))
    chosen = signing.plans(change, previous, keyring.files)
    explain(change, before, chosen, utc_now())
    if not any(plan.signers for plan in chosen.values()):
        raise ThresholdError(
            "none of the keys here is among those that still have to sign",
            remedy="name the folder of one that is with --keys; a complete change is published "
            "with `fer-train publish apply`",
        )
    if dry_run:
        typer.echo("a dry run: nothing was signed, nothing was written")
        return
    confirm(Asked(pending, keys, yes=yes))
    left = signing.sign(change, previous, keyring)
    pending_changes.update(pending, change)
    missing = any(plan.missing for plan in left.values())
    typer.echo(f"{pending} {'needs more signatures' if missing else 'is complete'}; next: "
               f"`fer-train publish {'sign' if missing else 'apply'} {pending}`")  # fmt: skip


@app.command()
def apply(
    *,
    pending: Annotated[Path, typer.Argument(help="Folder that was written with --out.")],
    repository: RepositoryOption,
    keys: KeysOption,
    password_files: PasswordOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Publish a change that was signed elsewhere, with the online keys that are here."""
    from fer_trainer.publish import pending as pending_changes
    from fer_trainer.publish import repository as repositories

    change, base = pending_changes.read(pending)
    asked = Asked(repository, keys, password_files or (), None, dry_run, yes)
    if base is not None and not repositories.exists(repository):
        repositories.read(repository)
    with ExitStack() as stack:
        area = open_staging(asked, stack)
        before = repositories.read(repository) if base is not None else None
        finish(asked, area, before, change, utc_now())


@app.command()
def status(
    *,
    repository: RepositoryOption,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Verify the whole repository and say what it holds, until when, and who signs."""
    from fer_trainer.publish import repository as repositories
    from fer_trainer.publish import summary

    found = repositories.read(repository)
    tree = summary.status(found, utc_now())
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, **tree}, indent=2))
    else:
        for line in summary.describe_status(tree):
            typer.echo(line)
    if tree["faults"]:
        raise FindingsError(
            f"devices refuse this repository or a part of it: {tree['faults'][0]}",
            remedy="see docs/model-updates.md on expiry and recovery",
        )

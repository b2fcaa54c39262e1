"""Reads the boards to work on, from the command line or an inventory file."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fer_agent.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ADDRESS = re.compile(
    r"^(?:(?P<user>[a-z_][a-z0-9_.-]*)@)?"
    r"(?P<host>\[[0-9a-f:.%a-z]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)"
    r"(?::(?P<port>\d{1,5}))?$",
    re.IGNORECASE,
)

LOCAL = "this machine"


@dataclass(frozen=True, slots=True)
class Target:
    """One board's address, login and settings.

    Attributes:
        name: its name in lines and tables.
        address: host name or address; None for this machine.
        user: whom to log in as; None leaves it to ssh's configuration.
        port: SSH port; None leaves it to ssh's configuration.
        key: private key; None takes the agent's and the usual ones.
        config: configuration file to lay down; None keeps the board's, or writes one of `settings`.
        settings: dotted configuration keys over that file.
        secrets: files to install as systemd credentials, by the credential's name.
    """

    name: str
    address: str | None = None
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    config: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)


class _Entry(BaseModel):
    """The keys that `[defaults]`, a group and a host have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    key: Path | None = None
    config: Path | None = None
    settings: dict[str, Any] = {}
    secrets: dict[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")], Path] = {}


class _Host(_Entry):
    address: str | None = None
    groups: tuple[str, ...] = ()


class _Inventory(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    defaults: _Entry = _Entry()
    groups: dict[str, _Entry] = {}
    hosts: Annotated[dict[str, _Host], Field(min_length=1)]


def parse_target(text: str, *, port: int | None = None, key: Path | None = None) -> Target:
    """Read `[user@]host[:port]`; `@local` is this machine.

    Raises:
        UsageError: it is neither.
    """
    if text == "@local":
        return Target(LOCAL)
    match = _ADDRESS.match(text)
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise UsageError(
            f"{text!r} is no [user@]host[:port]", remedy="write it like pi@camera-1.local"
        )
    return Target(
        name=text,
        address=match["host"].strip("[]"),
        user=match["user"],
        port=int(match["port"]) if match["port"] else port,
        key=key,
    )


def read_inventory(path: Path, *, only: Sequence[str] = ()) -> list[Target]:
    """Read an inventory file.

    A host takes what it does not say itself from its groups, the last one first, and then from
    `[defaults]`; `settings` and `secrets` are merged key by key. Paths are relative to the file.

    Args:
        path: TOML with `[hosts.<name>]`, and optionally `[groups.<name>]` and `[defaults]`.
        only: names of hosts and groups to keep; all when empty.

    Raises:
        UsageError: the file cannot be read or is wrong, or `only` names something it has not.
    """
    inventory = _load(path)
    unknown = set(only) - set(inventory.hosts) - set(inventory.groups)
    if unknown:
        raise UsageError(
            f"{path} has no host or group {', '.join(sorted(unknown))}",
            remedy="its hosts are: " + ", ".join(inventory.hosts),
        )
    return [
        _merge(name, host, inventory, path.parent)
        for name, host in inventory.hosts.items()
        if not only or name in only or set(host.groups) & set(only)
    ]


def _load(path: Path) -> _Inventory:
    remedy = "write [hosts.<name>] tables with an address; docs/fleet.md has an example"
    try:
        inventory = _Inventory.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy=remedy) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", remedy=remedy) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UsageError(f"{path}: {where}: {first['msg']}", remedy=remedy) from error
    for name, host in inventory.hosts.items():
        for group in set(host.groups) - set(inventory.groups):
            raise UsageError(
                f"{path}: host {name} is in group {group!r}, which is not there",
                remedy=f"add [groups.{group}], or take it out of the host's groups",
            )
    return inventory


def _merge(name: str, host: _Host, inventory: _Inventory, folder: Path) -> Target:
    layers = [inventory.defaults, *(inventory.groups[group] for group in host.groups), host]
    settings: dict[str, Any] = {}
    secrets: dict[str, Path] = {}
    for layer in layers:
        settings |= dict(flatten(layer.settings))
        secrets |= {name: _from(folder, path) for name, path in layer.secrets.items()}

    def last(attribute: str) -> Any:
        said = [getattr(layer, attribute) for layer in layers]
        return next((value for value in reversed(said) if value is not None), None)

    target = parse_target(host.address or name)
    key, config = last("key"), last("config")
    return Target(
        name=name,
        address=target.address,
        user=target.user or last("user"),
        port=target.port or last("port"),
        key=None if key is None else _from(folder, key),
        config=None if config is None else _from(folder, config),
        settings=settings,
        secrets=secrets,
    )


def _from(folder: Path, path: Path) -> Path:
    return folder / Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises


def flatten(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """List a table's values with dotted keys."""
    pairs: list[tuple[str, Any]] = []
    for key, value in table.items():
        pairs += (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else [(f"{prefix}{key}", value)]
        )
    return pairs

"""The four roles of a repository, their expiry and the number of keys that must sign.

Source: The Update Framework specification 1.0, section 2.1, which has the names.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias, get_args

from fer_agent.errors import UsageError

RoleName: TypeAlias = Literal["root", "targets", "snapshot", "timestamp"]

ROLES: Final[tuple[RoleName, ...]] = get_args(RoleName)
OFFLINE: Final[tuple[RoleName, ...]] = ("root", "targets")
"""Roles whose keys sign rarely and are on no machine that is always on."""

PURPOSE: Final[dict[RoleName, str]] = {
    "root": "says which keys are trusted",
    "targets": "says which models there are",
    "snapshot": "says which list of models is the newest",
    "timestamp": "says that all this is fresh",
}

DEFAULT_DAYS: Final[dict[RoleName, int]] = {
    "root": 365,
    "targets": 180,
    "snapshot": 30,
    "timestamp": 7,
}
"""A device that is kept from newer metadata notices after `timestamp` days at the latest; a timer
that renews it daily may fail for almost a week before devices refuse."""

EXPIRY_FIELD: Final = "x-fer-expiry-days"
"""Field of the root's signed part that carries the expiry settings with the repository."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """The days that each role's signatures are valid."""

    root: int = DEFAULT_DAYS["root"]
    targets: int = DEFAULT_DAYS["targets"]
    snapshot: int = DEFAULT_DAYS["snapshot"]
    timestamp: int = DEFAULT_DAYS["timestamp"]

    def __post_init__(self) -> None:
        """Refuse a number of days that no device could accept.

        Raises:
            UsageError: a number of days is not positive.
        """
        for role in ROLES:
            if self.days(role) < 1:
                raise UsageError(
                    f"{role} would be valid for {self.days(role)} days",
                    remedy="give it at least one day",
                )

    def days(self, role: RoleName) -> int:
        """Return the days of one role."""
        return int(getattr(self, role))

    def after(self, role: RoleName, now: datetime) -> datetime:
        """Return when something signed now expires."""
        return now + timedelta(days=self.days(role))

    def is_due(self, role: RoleName, expires: datetime, now: datetime) -> bool:
        """Return whether less than half of a role's days are left."""
        return expires - now < timedelta(days=self.days(role)) / 2

    def as_json(self) -> dict[str, int]:
        """Return the days by role."""
        return {role: self.days(role) for role in ROLES}


def parse_role(text: str) -> RoleName:
    """Read a role's name.

    Raises:
        UsageError: there is no such role.
    """
    for role in ROLES:
        if role == text:
            return role
    raise UsageError(f"there is no role {text!r}", remedy=f"use {', '.join(ROLES)}")


def parse_expiry(settings: list[str] | None, base: Expiry | None = None) -> Expiry:
    """Read `role=days` settings over those of a base.

    Raises:
        UsageError: a setting is no `role=days` with a positive whole number.
    """
    days = (base or Expiry()).as_json()
    for text in settings or ():
        role, _, number = text.partition("=")
        if not number.isdecimal():
            raise UsageError(
                f"--expires {text!r} says no number of days",
                remedy="write it as --expires timestamp=7",
            )
        days[parse_role(role)] = int(number)
    return Expiry(**days)


def parse_thresholds(settings: list[str] | None) -> dict[RoleName, int]:
    """Read `role=keys` settings; one key must sign where none is given.

    Raises:
        UsageError: a setting is no `role=keys` with a whole number.
    """
    thresholds: dict[RoleName, int] = dict.fromkeys(ROLES, 1)
    for text in settings or ():
        role, _, number = text.partition("=")
        if not number.isdecimal():
            raise UsageError(
                f"--threshold {text!r} says no number of keys",
                remedy="write it as --threshold root=2",
            )
        thresholds[parse_role(role)] = int(number)
    return thresholds

"""Choice of the keys that sign a change, as few as must, and the signing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from securesystemslib.exceptions import UnverifiedSignatureError

from fer_trainer.publish import keys
from fer_trainer.publish.errors import ThresholdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from securesystemslib.signer import CryptoSigner, Key
    from tuf.api.metadata import Metadata, Root

    from fer_trainer.publish.changes import MetadataChange
    from fer_trainer.publish.keys import KeyFile, Passwords
    from fer_trainer.publish.roles import RoleName


@dataclass(frozen=True, slots=True)
class Need:
    """A number of signatures that are needed, and the keys that may give them.

    Attributes:
        by: whose keys they are, for people.
        keys: the keys by id.
        threshold: how many of them.
    """

    by: str
    keys: Mapping[str, Key]
    threshold: int


@dataclass(frozen=True, slots=True)
class SigningPlan:
    """The keys that sign now, and the signatures that are missing afterwards.

    Attributes:
        signers: keys that are here and sign now.
        missing: needs that are not met even so, and how many signatures each lacks.
    """

    signers: tuple[Key, ...]
    missing: tuple[tuple[Need, int], ...]

    def require_complete(self, what: str) -> None:
        """Refuse to go on with too few signatures.

        Args:
            what: what is signed, for people.

        Raises:
            ThresholdError: signatures are missing.
        """
        if not self.missing:
            return
        need, lacking = self.missing[0]
        absent = [keys.label_of(key) for key in need.keys.values() if key not in self.signers]
        raise ThresholdError(
            f"{what} needs {need.threshold} signatures by {need.by}, {lacking} missing; "
            f"not here: {', '.join(absent)}",
            remedy="name the folders of more keys with --keys; or write the change to a folder "
            "with --out, carry that to the other keys and use `fer-train publish sign` there",
        )


@dataclass(slots=True)
class Keyring:
    """The private keys that are here; each is decrypted once, when it is first needed.

    Attributes:
        files: their files by key id.
        passwords: decrypt them.
    """

    files: Mapping[str, KeyFile]
    passwords: Passwords
    _open: dict[str, CryptoSigner] = field(default_factory=dict)

    def signer(self, keyid: str) -> CryptoSigner:
        """Return the signer of a key.

        Raises:
            KeyFileError: the key cannot be read or decrypted.
        """
        if keyid not in self._open:
            self._open[keyid] = keys.open_signer(self.files[keyid], self.passwords)
        return self._open[keyid]


def needs_of(role: RoleName, root: Root, previous: Root | None) -> tuple[Need, ...]:
    """Return the signatures that a role's metadata needs.

    Args:
        role: the role.
        root: the root that holds once it is published; for the role root, the new one itself.
        previous: the root before that; a new root needs its keys too. None for the first.
    """
    own = Need(f"{role} keys", _keys(root, role), root.roles[role].threshold)
    if role != "root" or previous is None:
        return (own,)
    old = Need("the root keys so far", _keys(previous, role), previous.roles[role].threshold)
    if old.keys == own.keys and old.threshold == own.threshold:
        return (own,)
    return (old, Need("the new root keys", own.keys, own.threshold))


def choose(needs: Sequence[Need], here: Iterable[str], signed: Iterable[str] = ()) -> SigningPlan:
    """Choose as few keys as possible of those that are here.

    Args:
        needs: what must be met.
        here: ids of the private keys that are here.
        signed: ids of the keys that have signed already.
    """
    available, done = set(here), set(signed)
    chosen: dict[str, Key] = {}
    missing = []
    for need in needs:
        # A key that meets two needs at once goes first.
        order = sorted(need.keys, key=lambda keyid: -sum(keyid in other.keys for other in needs))
        have = sum(keyid in done or keyid in chosen for keyid in need.keys)
        for keyid in order:
            if have < need.threshold and keyid in available and keyid not in {*done, *chosen}:
                chosen[keyid] = need.keys[keyid]
                have += 1
        if have < need.threshold:
            missing.append((need, need.threshold - have))
    return SigningPlan(tuple(chosen.values()), tuple(missing))


def plans(
    change: MetadataChange, previous: Root | None, here: Iterable[str]
) -> dict[RoleName, SigningPlan]:
    """Choose the keys that sign each part of a change; valid signatures that it has count."""
    available = set(here)
    return {
        role: choose(
            needs := needs_of(role, _root_after(change, previous), previous),
            available,
            _valid(metadata, needs),
        )
        for role, metadata in change.parts
    }


def sign(
    change: MetadataChange, previous: Root | None, keyring: Keyring
) -> dict[RoleName, SigningPlan]:
    """Sign a change with the keys that are here; returns each part's plan.

    Raises:
        KeyFileError: a key cannot be read or decrypted; nothing is signed then.
    """
    chosen = plans(change, previous, keyring.files)
    for plan in chosen.values():
        for key in plan.signers:
            keyring.signer(key.keyid)
    for role, metadata in change.parts:
        for key in chosen[role].signers:
            metadata.sign(keyring.signer(key.keyid), append=True)
    return chosen


def sign_online(metadata: Metadata, plan: SigningPlan, keyring: Keyring) -> None:  # type: ignore[type-arg]
    """Sign snapshot or timestamp with the keys chosen.

    Raises:
        KeyFileError: a key cannot be read or decrypted.
    """
    for key in plan.signers:
        metadata.sign(keyring.signer(key.keyid), append=True)


def _root_after(change: MetadataChange, previous: Root | None) -> Root:
    root = change.root.signed if change.root is not None else previous
    if root is None:
        raise ValueError("a change without a root needs the root that holds")
    return root


def _keys(root: Root, role: RoleName) -> dict[str, Key]:
    return {keyid: root.keys[keyid] for keyid in root.roles[role].keyids}


def _valid(metadata: Metadata, needs: Sequence[Need]) -> set[str]:  # type: ignore[type-arg]
    content, valid = metadata.signed_bytes, set()
    for keyid, key in {keyid: key for need in needs for keyid, key in need.keys.items()}.items():
        if keyid in metadata.signatures:
            try:
                key.verify_signature(metadata.signatures[keyid], content)
            except UnverifiedSignatureError:
                continue
            valid.add(keyid)
    return valid

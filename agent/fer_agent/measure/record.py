"""The measured choice of a board on disk: measurements, setting and conditions."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final, Literal

from fer_agent.errors import ModelContractError
from fer_agent.inference.setting import Setting
from fer_agent.measure.fingerprint import Fingerprint
from fer_agent.system import durable
from fer_agent.system.records import FrozenRecord, StateRecord

_WORTH: Final = 0.9
"""Share of the time at which a setting with more threads is chosen: each thread takes a core from
the camera and the detector, and makes heat."""


class Measurement(FrozenRecord):
    """The result of one setting."""

    setting: Setting
    latency_ms: float | None = None
    """Median duration of one face in the calmest part of the run; None when it failed."""
    largest_difference: float | None = None
    """Of any output on golden inputs, against the FP32 file's."""
    label_disagreements: int | None = None
    """Golden inputs that get another label."""
    accuracy_lost: float | None = None
    """Share of the validation split that FP32 gets right beyond this; None when not measured."""
    problem: str = ""
    """Why the setting cannot be chosen; empty when it can."""


class MeasuredChoice(StateRecord, extra="forbid"):
    """`<store>/.state/choices/<model>/<start of the hash of its files>.json`."""

    schema_version: Literal[1] = 1
    model: str
    version: str
    created: str
    """Date and time in UTC, RFC 3339."""
    fingerprint: Fingerprint
    limit: float = 0.01
    """Largest loss of accuracy that speed might cost, in [0, 1]; measuring again keeps to it."""
    setting: Setting
    measured: tuple[Measurement, ...]

    def on(self, runtime: str) -> Setting | None:
        """Return the best setting on one runtime, or on any for `auto`; None when none works."""
        if runtime in ("auto", self.setting.runtime):
            return self.setting
        try:
            return best(one for one in self.measured if one.setting.runtime == runtime)
        except ModelContractError:
            return None


def best(measured: Iterable[Measurement]) -> Setting:
    """Return the fastest setting without a problem, with few threads where that costs little.

    Raises:
        ModelContractError: every setting has a problem; the message has that of the first.
    """
    tried = list(measured)
    timed = [
        (one.latency_ms, one.setting)
        for one in tried
        if one.latency_ms is not None and not one.problem
    ]
    if not timed:
        problem = tried[0].problem if tried else "no runtime"
        raise ModelContractError(
            f"the model runs in no way on this board: {problem}",
            remedy="fetch the model again, or use another one",
        )
    timed.sort(key=lambda one: (one[1].threads, one[0]))
    chosen_ms, chosen = timed[0]
    for latency_ms, setting in timed:
        if latency_ms <= _WORTH * chosen_ms:
            chosen_ms, chosen = latency_ms, setting
    return chosen


class FileWatcher:
    """Notices that a choice's file was replaced or removed, at the cost of one `stat`.

    Args:
        store, model, model_sha256: as for `path_of`.
    """

    def __init__(self, store: Path, model: str, model_sha256: str) -> None:
        self._path = path_of(store, model, model_sha256)
        self._seen = self._identity()

    def changed(self) -> bool:
        """Return whether the file is another one than at the last call."""
        before, self._seen = self._seen, self._identity()
        return self._seen != before

    def _identity(self) -> tuple[int, int] | None:
        try:
            entry = self._path.stat()
        except OSError:
            return None
        return entry.st_ino, entry.st_mtime_ns


def lock_of(store: Path, model: str) -> Path:
    """Return the lock that is held while a model is measured."""
    return _folder(store, model) / "build.lock"


def path_of(store: Path, model: str, model_sha256: str) -> Path:
    """Return the path of a model's choice.

    Each content has its own file, so that a new version is measured while the old one runs.

    Args:
        store: the model store.
        model: its name.
        model_sha256: hash over all of its files.
    """
    return _folder(store, model) / f"{model_sha256[:16]}.json"


def read(store: Path, model: str, model_sha256: str) -> MeasuredChoice | None:
    """Return the recorded choice; None when there is none that can be read."""
    return MeasuredChoice.read(path_of(store, model, model_sha256))


def latest(store: Path, model: str) -> MeasuredChoice | None:
    """Return the newest choice for any content of a model; None when none was ever measured."""
    found = map(MeasuredChoice.read, _folder(store, model).glob("*.json"))
    return max(filter(None, found), key=lambda choice: choice.created, default=None)


def write(store: Path, choice: MeasuredChoice) -> Path:
    """Record a choice; after a power cut the old one or the new one is there.

    Returns:
        The file.

    Raises:
        TemporaryError: the disk is full.
        ConfigError: the store cannot be written.
    """
    path = path_of(store, choice.model, choice.fingerprint.model_sha256)
    try:
        choice.write(path)
    except OSError as error:
        raise durable.refused(error, store) from error
    return path


def prune(store: Path, model: str, hashes: Collection[str]) -> None:
    """Remove a model's choices but those for the contents with these hashes.

    Raises:
        OSError: the store cannot be written.
    """
    stay = {path_of(store, model, each) for each in hashes}
    for path in _folder(store, model).glob("*.json"):
        if path not in stay:
            path.unlink(missing_ok=True)


def _folder(store: Path, model: str) -> Path:
    return store / ".state" / "choices" / model

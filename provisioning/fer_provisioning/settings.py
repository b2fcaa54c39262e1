"""Makes the configuration file of a board: its present one, a given one, or one made of answers."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_agent.config import loading
from fer_agent.config.model import PERMITTED_CONTEXTS
from fer_agent.errors import ConfigError, UsageError
from fer_provisioning.targets import flatten

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_agent.config.model import AgentConfig
    from fer_provisioning.targets import Target


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration for one board.

    Attributes:
        text: the file's content.
        config: the parsed content.
    """

    text: str
    config: AgentConfig

    @property
    def sha256(self) -> str:
        """Hash of the file's content, 64 hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def for_target(target: Target, existing: str | None, *, camera: str = "/dev/video0") -> ConfigFile:
    """Make the configuration of one board.

    Args:
        target: may name a file, and settings over it.
        existing: content of the file that is on the board; None when there is none.
        camera: the board's usual camera, taken when no other is named.

    Returns:
        The given file or the board's own, untouched when the settings change nothing in it, so that
        comments survive; else a file with every key and its description.

    Raises:
        ConfigError: the configuration is wrong.
        UsageError: there is nothing to make one of.
    """
    base = existing
    if target.config is not None:
        base = _read(target.config)
    if base is None and "deployment.context" not in target.settings:
        raise UsageError(
            "there is no configuration yet, and nobody said where the board is used",
            remedy="give --context (" + ", ".join(PERMITTED_CONTEXTS) + ") or --config FILE",
        )
    origin = str(target.config or f"the configuration of {target.name}")
    tables = _parse(base, origin) if base is not None else {}
    before = dict(flatten(tables))
    settings = before | dict(target.settings)
    if base is not None and settings == before:
        return ConfigFile(base, _check(base, origin))
    if not any(key.startswith("camera.") for key in settings):
        settings["camera.main.source"] = camera
    text = loading.template(settings)
    return ConfigFile(text, _check(text, origin))


def missing_secret(config: AgentConfig, known: Mapping[str, object]) -> str | None:
    """Name the credential that the configuration asks for and that is missing; None for none.

    A plain name is a systemd credential; anything else is a path on the board.
    """
    path = config.mqtt.password_file
    if path is None or len(path.parts) != 1 or path.name in known:
        return None
    return path.name


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}", remedy="give a readable TOML file with --config"
        ) from error


def _parse(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{origin} is not TOML: {error}", remedy="correct it, or give another with --config"
        ) from error


def _check(text: str, origin: str) -> AgentConfig:
    """Read a configuration as the board will, without this machine's environment."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.toml")
        path.write_text(text, encoding="utf-8")
        try:
            return loading.load(path, env={})
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(path), origin), remedy=error.remedy) from error

"""The loading of the configuration from a TOML file, the environment and options, in this order.

`FER_AGENT__DETECTOR__SCORE=0.7` sets `detector.score`, `FER_AGENT__CAMERA__FRONT_DOOR__SOURCE` the
`source` in `[camera.front-door]`. An empty variable counts as not set.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from fer_agent.config import model as config_module
from fer_agent.config.field_docs import describe
from fer_agent.config.model import AgentConfig
from fer_agent.config.problems import (
    ENV_PREFIX,
    NO_FILE,
    Key,
    Origins,
    explain,
    field_of,
    lines_of_keys,
    section_of,
    takes_text,
    unreadable,
    without_credentials,
)
from fer_agent.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from collections.abc import Callable, Iterable, Iterator, Mapping

from pydantic.fields import FieldInfo

from fer_agent.config.model import Section

SCHEMA_ID = "urn:fer-agent:schema:v1:config"
COMMAND_LINE = "command line"
_SYSTEM_FILE = Path("/etc/fer-agent/config.toml")
_EXAMPLE = {"deployment": {"context": "home"}, "camera": {"front": {"source": "/dev/video0"}}}
_TEMPLATE_HEAD = """\
# Configuration of fer-agent; check it with `fer-agent config validate`.
# A line that begins with #key shows the key's default, or an example where there is none.
"""


def load(
    path: Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> AgentConfig:
    """Read the configuration; see `read` for the arguments and errors."""
    return read(path, overrides=overrides, env=env)[0]


def load_incomplete(
    path: Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> AgentConfig:
    """Read the configuration for a command that needs no camera and no deployment context.

    Examples replace those two where they are missing. See `read` for the arguments and errors.
    """
    tables, origins = _layers(path, overrides, env)
    return _validate(_EXAMPLE | tables, origins)


def read(
    path: Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[AgentConfig, Origins]:
    """Read the configuration and the origin of every key that was set.

    Args:
        path: a TOML file; None takes the first default place that has one, or no file at all.
        overrides: dotted keys from the command line, typed; None leaves a key alone, a dict
            replaces a whole table (`{"camera": {"clip": {"source": "clip.mp4"}}}`).
        env: the environment; by default the process's.

    Raises:
        ConfigError: the file cannot be read or is not TOML, or keys are unknown, missing or wrong.
            The message names file and line (or variable) of every problem, the first one first.
    """
    tables, origins = _layers(path, overrides, env)
    return _validate(tables, origins), origins


def default_places(env: Mapping[str, str]) -> list[Path]:
    """List the default places of the file: the user's own first, for root /etc first."""
    config_home = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME") or "~", ".config"))
    places = [config_home.expanduser() / "fer-agent" / "config.toml", _SYSTEM_FILE]
    return places[::-1] if os.geteuid() == 0 else places


def usual_file(env: Mapping[str, str]) -> Path | None:
    """Return the file that is read by default; None when there is none."""
    return next((place for place in default_places(env) if _is_there(place)), None)


def template(settings: Mapping[str, Any] | None = None) -> str:
    """Write a configuration file with every key, its default and its description.

    Args:
        settings: dotted keys and the values to write; every other key is commented out, and so is
            a camera called front when no camera is among them.

    Raises:
        ConfigError: a key is unknown or a value wrong.
    """
    describe(config_module)
    chosen: dict[str, Any] = {}
    origins: Origins = {(): COMMAND_LINE}
    for dotted, value in (settings or {}).items():
        if value is not None:
            _set(chosen, origins, tuple(dotted.split(".")), value, COMMAND_LINE)
    _validate(_EXAMPLE | chosen, origins)

    def write(key: Key, field: FieldInfo) -> Iterator[str]:
        table: Any = chosen
        for step in key[:-1]:
            table = table.get(step, {})
        yield f"# {' '.join((field.description or '').split())}"
        if key[-1] in table:
            yield f"{key[-1]} = {_toml(table[key[-1]])}"
        else:
            default = None if field.default_factory else field.get_default()
            example = (field.examples or [None])[0]
            value = example if field.is_required() or default is None else default
            yield f"#{key[-1]} = {_toml(value)}"

    cameras = chosen.get("camera", {})
    text = _document(cameras or ("front",), write)
    return _TEMPLATE_HEAD + (text if cameras else text.replace("\n[camera.", "\n#[camera."))


def render(config: AgentConfig, origins: Origins | None = None) -> str:
    """Write the effective configuration as TOML, with the origin of each value if given."""
    values = config.model_dump()

    def write(key: Key, _field: FieldInfo) -> Iterator[str]:
        value: Any = values
        for step in key:
            value = value[step]
        origin = (origins or {}).get(key, "default")
        if value is None:
            yield f"# {key[-1]} is not set"
        else:
            shown = without_credentials(_toml(value))
            yield f"{key[-1]} = {shown}" + ("" if origins is None else f"  # {origin}")

    return _document(config.camera, write).lstrip("\n")


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the configuration file."""
    describe(config_module)
    document = AgentConfig.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **document,
        "title": "Configuration of fer-agent",
    }


def _layers(
    path: Path | None, overrides: Mapping[str, Any] | None, env: Mapping[str, str] | None
) -> tuple[dict[str, Any], Origins]:
    """Merge file, environment and overrides, without validating the values."""
    env = os.environ if env is None else env
    if path is None:
        path = usual_file(env)
    tables: dict[str, Any] = {}
    origins: Origins = {(): str(path) if path else NO_FILE}
    if path:
        text = _read_text(path)
        tables = _parse(text, path)
        for key, line in lines_of_keys(text):
            origins.setdefault(key, f"{path}:{line}")
    for name, value in sorted(env.items()):
        if name.startswith(ENV_PREFIX) and value:
            key = _key_of_variable(name)
            _set(tables, origins, key, _typed(value, field_of(key)), name)
    for dotted, value in (overrides or {}).items():
        if value is not None:
            _set(tables, origins, tuple(dotted.split(".")), value, COMMAND_LINE)
    return tables, origins


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # reading it will raise the same with its message
        return True


def _read_text(path: Path) -> str:
    try:
        # Editors on other systems put a byte order mark first, which TOML does not know.
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).partition(" (at ")
        line = re.match(r"line (\d+)", place)
        number = int(line[1]) if line else text.rstrip().count("\n") + 1
        raise ConfigError(
            f"{path}:{number}: this is not TOML: {what[:1].lower()}{what[1:]}",
            remedy="correct that line; text stands in quotes, tables look like [detector]",
        ) from error


def _validate(tables: dict[str, Any], origins: Origins) -> AgentConfig:
    try:
        return AgentConfig.model_validate(tables)
    except ValidationError as error:
        raise explain(error, origins) from error


def _key_of_variable(name: str) -> Key:
    key = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
    if key[0] == "camera" and len(key) > 1:
        # The names of cameras have hyphens, those of variables cannot.
        return (key[0], key[1].replace("_", "-"), *key[2:])
    return key


def _typed(text: str, field: FieldInfo | None) -> Any:
    if field is None or takes_text(field.annotation):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # validation will report it


def _set(tables: dict[str, Any], origins: Origins, key: Key, value: Any, origin: str) -> None:
    table = tables
    for depth, step in enumerate(key[:-1], start=1):
        origins.setdefault(key[:depth], origin)
        inner = table.setdefault(step, {})
        if not isinstance(inner, dict):
            return  # validation will report that it is no table
        table = inner
    for known in [known for known in origins if known[: len(key)] == key]:
        del origins[known]
    table[key[-1]] = value
    origins[key] = origin


def _document(cameras: Iterable[str], write: Callable[[Key, FieldInfo], Iterator[str]]) -> str:
    lines: list[str] = []
    for name, field in AgentConfig.model_fields.items():
        section = cast("type[Section]", section_of(field.annotation))
        for table in [(name, camera) for camera in cameras] if name == "camera" else [(name,)]:
            lines += ["", f"# {(section.__doc__ or '').splitlines()[0]}", f"[{'.'.join(table)}]"]
            for key, inner in section.model_fields.items():
                lines += write((*table, key), inner)
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    # JSON's numbers, booleans, arrays and double-quoted text are TOML's as well.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)

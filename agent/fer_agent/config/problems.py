"""The errors of a configuration as sentences, with line, key and the key that was meant."""

from __future__ import annotations

import difflib
import re
import sys
import typing
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias

from fer_agent.config import model as config_module
from fer_agent.config.field_docs import describe
from fer_agent.config.model import PERMITTED_CONTEXTS, AgentConfig, Section
from fer_agent.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

Key: TypeAlias = tuple[str, ...]
"""A key from the outermost table inwards, `("detector", "score")`."""

Origins: TypeAlias = dict[Key, str]
"""The origin of each key's value: `FILE:LINE`, an environment variable, or the command line."""

ENV_PREFIX = "FER_AGENT__"
NO_FILE = "no configuration file"
"""The origin where there is no file."""

ANY_NAME = "*"
"""Placeholder for a name that the user chooses, as the camera's in `camera.*.source`."""

_PLAIN_WORDS = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text in quotes",
    "path_type": "must be a path in quotes",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "string_too_short": "must not be empty",
}
_NAME_KEYS = (("camera", ANY_NAME), ("device", "id"))
_SHOWN_CHARACTERS = 60


def known_keys(
    section: type[Section] = AgentConfig, prefix: Key = ()
) -> Iterator[tuple[Key, FieldInfo]]:
    """Yield every key of the configuration and its field, in the order of the file."""
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is None:
            yield (*prefix, name), field
        else:
            named = (ANY_NAME,) if typing.get_origin(field.annotation) is dict else ()
            yield from known_keys(inner, (*prefix, name, *named))


def section_of(annotation: Any) -> type[Section] | None:
    """Return the section a field holds, itself or in a table of named ones; None for a value."""
    if typing.get_origin(annotation) is dict:
        annotation = typing.get_args(annotation)[1]
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def field_of(key: Key) -> FieldInfo | None:
    """Return the field behind a key, None when there is no such key."""
    return dict(known_keys()).get(_general(key))


def takes_text(annotation: Any) -> bool:
    """Tell whether a field's value is text: a string, a path, or one of several words."""
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, UnionType):
        return any(takes_text(arg) for arg in args)
    if origin is Literal:
        return all(isinstance(arg, str) for arg in args)
    return isinstance(annotation, type) and (
        issubclass(annotation, str) or hasattr(annotation, "__fspath__")
    )


def variable(key: Key) -> str:
    """Return the environment variable that sets a key."""
    return ENV_PREFIX + "__".join(key).upper().replace("-", "_")


def without_credentials(text: str) -> str:
    """Replace user name and password of any address in a text."""
    return re.sub(r"://[^/\s]*@", "://***@", text)


def explain(error: ValidationError, origins: Origins) -> ConfigError:
    """Convert pydantic's errors into one error, with a line and a remedy for each problem."""
    problems = [_problem(detail, origins) for detail in error.errors(include_url=False)]
    problems = list(dict.fromkeys(problems))
    if len(problems) == 1:
        return ConfigError(problems[0][0], remedy=problems[0][1])
    remedy = f"correct these {len(problems)}, then try `fer-agent config validate`"
    if origins[()] == NO_FILE:
        remedy = "write a file that has them: `fer-agent config init` makes one to fill in"
    return ConfigError("\n".join(f"{what} ({how})" for what, how in problems), remedy=remedy)


def unreadable(path: Path, error: OSError | UnicodeDecodeError) -> ConfigError:
    """Return the error for a configuration file that cannot be read as text."""
    if isinstance(error, UnicodeDecodeError):
        return ConfigError(f"{path} is not UTF-8 text", remedy="save it as UTF-8")
    remedy = "name another file with --config, or make one with `fer-agent config init`"
    return ConfigError(f"cannot read {path}: {error.strerror}", remedy=remedy)


def lines_of_keys(text: str) -> Iterator[tuple[Key, int]]:
    """Yield each key and table header of a valid TOML text with its line, counted from 1.

    A statement is the shortest run of lines that is valid TOML by itself, so the parser decides on
    strings and arrays over several lines, dotted and quoted keys and inline tables.
    """
    header: Key = ()
    statement, started = "", 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not statement:
            started = number
        statement += line + "\n"
        try:
            parsed = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        keys = list(_keys(parsed))
        if statement.lstrip().startswith("["):
            header = keys[-1]
            yield header, started
        else:
            for key in keys:
                yield header + key, started
        statement = ""


def _keys(table: dict[str, Any], prefix: Key = ()) -> Iterator[Key]:
    for name, value in table.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from _keys(value, (*prefix, name))


def _problem(detail: ErrorDetails, origins: Origins) -> tuple[str, str]:
    key = tuple(str(step) for step in detail["loc"] if step != "[key]")
    kind = detail["type"]
    if key == ("deployment",):
        key = ("deployment", "context")
    where = _origin(key, origins)
    return f"{where}: {_sentence(key, kind, detail)}", _remedy(key, kind, where)


def _sentence(key: Key, kind: str, detail: ErrorDetails) -> str:
    name = f"`{'.'.join(key)}`"
    if key and key[-1].isdigit() and field_of(key[:-1]) is not None:
        name = f"number {int(key[-1]) + 1} of `{'.'.join(key[:-1])}`"
    if kind == "extra_forbidden":
        return f"there is no key {name}"
    if kind == "missing" and key != ("camera",):
        return f"{name} is missing"
    if key == ("camera",) and kind in ("missing", "too_short"):
        return "no camera is configured"
    if kind == "value_error":
        return f"{name}: {detail['msg'].removeprefix('Value error, ')}"
    if kind == "string_pattern_mismatch" and _general(key) in _NAME_KEYS:
        words = "must be a short name of small letters, digits and hyphens"
    else:
        plain = re.sub(r"^(Input|String|Dictionary|List|Tuple) should ", "must ", detail["msg"])
        words = _PLAIN_WORDS.get(kind, plain).replace(" after validation", "")
    return f"{name} {words}{_but_is(key, detail['input'])}"


def _but_is(key: Key, value: Any) -> str:
    if isinstance(value, (dict, list)) or value == "" or "password" in key[-1]:
        return ""
    shown = without_credentials(value) if isinstance(value, str) else value
    return f", not {_toml_like(shown)[:_SHOWN_CHARACTERS]}"


def _toml_like(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _remedy(key: Key, kind: str, where: str) -> str:
    field = field_of(key)
    if field is None and key:
        field = field_of(key[:-1])  # one item of a list
    if kind == "extra_forbidden":
        return _did_you_mean(key, where)
    if key == ("deployment", "context"):
        return (
            f"set it, or --context, to one of {', '.join(PERMITTED_CONTEXTS)}; workplace and "
            "education need `deployment.medical_or_safety_justification`"
        )
    if key[0] == "camera" and (len(key) == 1 or field is None):
        return 'give each camera a table of its own: [camera.front] with source = "/dev/video0"'
    if field is None:
        return f"write [{'.'.join(key)}] and its keys below it" if key else "correct it"
    if field.is_required():
        describe(config_module)
        example = f"set it, for example to {(field.examples or ['a value'])[0]!r}"
        refused = f"correct it, or see what else it takes: {field.description}"
        return refused if kind == "value_error" else example
    default = field.get_default(call_default_factory=False)
    shown = "" if default is None or field.default_factory else f", which is {_toml_like(default)}"
    return f"correct it, or leave it out for the default{shown}"


def _did_you_mean(key: Key, where: str) -> str:
    names = [".".join(known) for known, _ in known_keys()]
    asked = ".".join(_general(key))
    sections = sorted({name.split(".")[0] for name in names})
    same_word = [name for name in names if name.split(".")[-1] == key[-1]]
    nearest = (
        difflib.get_close_matches(asked, names, n=1, cutoff=0.8)
        or same_word
        or difflib.get_close_matches(asked, names + sections, n=1)
        or difflib.get_close_matches(key[-1], [name.split(".")[-1] for name in names], n=1)
    )
    if not nearest:
        return "remove it; `fer-agent config init` writes a file with every key"
    meant = nearest[0].replace(ANY_NAME, key[1] if key[0] == "camera" else "front")
    if where.startswith(ENV_PREFIX):
        return f"did you mean {variable(tuple(meant.split('.')))}?"
    return f"did you mean `{meant}`?"


def _general(key: Key) -> Key:
    return (key[0], ANY_NAME, *key[2:]) if key[:1] == ("camera",) and len(key) > 1 else key


def _origin(key: Key, origins: Origins) -> str:
    return next(
        origins[key[:length]] for length in range(len(key), -1, -1) if key[:length] in origins
    )

"""The JSON Schemas of all payloads and the AsyncAPI description, made from the models.

`python -m fer_agent.mqtt.schemas FOLDER` writes the files of `schemas/v1`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

from fer_agent.config.field_docs import describe
from fer_agent.models.emotions import DominantWord
from fer_agent.mqtt import payloads
from fer_agent.mqtt.messages import CHANNELS, Channel, MessageKind, root
from fer_agent.mqtt.payloads import SCHEMA_NAMES, SCHEMA_ROOT, EventData, Payload

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_ASYNCAPI_VERSION: Final = "3.0.0"

_DESCRIPTIONS: Final[dict[MessageKind, str]] = {
    MessageKind.STATUS: "Whether the agent runs; `offline` is its last will.",
    MessageKind.INFO: "What runs there.",
    MessageKind.HEALTH: "Figures about the agent itself, each minute.",
    MessageKind.CAMERA_STATUS: "Whether a camera gives frames, and why not.",
    MessageKind.EVENTS: "A face was first seen, changed, or has gone. "
    "Delivered at least once, in order.",
    MessageKind.STATE: "The faces in view now; on change and every 20 seconds.",
    MessageKind.EMOTION: "One word for everybody in view; on change and every 20 seconds.",
    MessageKind.ALERT: "A fault that stands; an empty payload clears it.",
}


def documents() -> dict[str, dict[str, Any]]:
    """Return every file's content by its name: a schema for each payload, and asyncapi.json."""
    describe(payloads)
    models: dict[str, type[Payload]] = {
        schema_name(kind): channel.model
        for kind, channel in CHANNELS.items()
        if channel.model is not None
    }
    models["event-data"] = EventData
    files = {f"{name}.schema.json": _schema(name, models[name]) for name in SCHEMA_NAMES}
    return {**files, "asyncapi.json": _asyncapi()}


def schema_name(kind: MessageKind) -> str:
    """Return the name of the schema that a kind's payloads follow."""
    return "event" if kind is MessageKind.EVENTS else kind.value


def write_documents(files: Mapping[str, Any], folder: Path) -> None:
    """Write JSON documents by file name into a folder; make the folder when it is missing.

    Raises:
        OSError: the folder or a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in files.items():
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


def _schema(name: str, model: type[Payload]) -> dict[str, Any]:
    schema = model.model_json_schema(mode="serialization")
    return {"$schema": _DIALECT, "$id": SCHEMA_ROOT + name, **schema}


def _asyncapi() -> dict[str, Any]:
    return {
        "asyncapi": _ASYNCAPI_VERSION,
        "info": {
            "title": "fer-agent",
            "version": "1",
            "description": "What an on-device facial-emotion agent says over MQTT. Fields are only "
            "added within v1. No message carries a picture, a crop or an embedding.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {kind.value: _channel(kind, channel) for kind, channel in CHANNELS.items()},
        "operations": {kind.value: _operation(kind, channel) for kind, channel in CHANNELS.items()},
    }


def _channel(kind: MessageKind, channel: Channel) -> dict[str, Any]:
    parameter = "alert" if kind is MessageKind.ALERT else "camera"
    address = f"{root('{device}')}/{channel.address}".replace("{name}", f"{{{parameter}}}")
    described = {
        "device": "The device's id.",
        "camera": "The camera's name in the configuration.",
        "alert": "The fault's id.",
    }
    payload: dict[str, Any] = {"$ref": f"{schema_name(kind)}.schema.json"}
    if channel.model is None:
        payload = {"type": "string", "enum": list(get_args(DominantWord))}
    return {
        "address": address,
        "description": _DESCRIPTIONS[kind],
        "parameters": {
            name: {"description": described[name]} for name in re.findall(r"{(\w+)}", address)
        },
        "messages": {kind.value: {"contentType": channel.content_type, "payload": payload}},
    }


def _operation(kind: MessageKind, channel: Channel) -> dict[str, Any]:
    binding: dict[str, Any] = {
        "qos": channel.qos,
        "retain": channel.retain,
        "bindingVersion": "0.2.0",
    }
    if channel.expiry_s is not None:
        binding["messageExpiryInterval"] = channel.expiry_s
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{kind.value}"},
        "messages": [{"$ref": f"#/channels/{kind.value}/messages/{kind.value}"}],
        "bindings": {"mqtt": binding},
    }


if __name__ == "__main__":
    write_documents(documents(), Path(sys.argv[1]))

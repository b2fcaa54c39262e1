"""JSON Schemas of the files that `fer-agent bench` writes, made from its models.

`python -m fer_agent.bench.schema FOLDER` writes the files of `schemas/bench/v1`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from fer_agent.bench.record import BenchReport, Comparison
from fer_agent.mqtt.schemas import write_documents

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_ROOT: Final = "urn:fer-agent:schema:bench:v1:"


def documents() -> dict[str, dict[str, Any]]:
    """Return every file's content by its name."""
    return {
        f"{name}.schema.json": {
            "$schema": _DIALECT,
            "$id": _ROOT + name,
            **model.model_json_schema(mode="serialization"),
        }
        for name, model in (("result", BenchReport), ("comparison", Comparison))
    }


def write(folder: Path) -> None:
    """Write all files into a folder; as `fer_agent.mqtt.schemas.write_documents`."""
    write_documents(documents(), folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))

"""JSON Schemas of what `fer-agent bench` writes, made from the models that it writes with.

`python -m fer_agent.bench.schema FOLDER` writes the files that the repository carries in
`schemas/bench/v1`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from fer_agent.bench.record import BenchReport, Comparison

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
    """Write all files into a folder, which is made when it is not there.

    Raises:
        OSError: the folder or a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))

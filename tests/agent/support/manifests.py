"""The manifest of a classifier of two classes, around any bytes as its network."""

from __future__ import annotations

import hashlib
from typing import Any


def manifest(network: bytes = b"network", **changes: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "name": "tiny",
        "version": "1.2.3",
        "task": "facial-emotion",
        "files": [{**entry(network, "model.onnx"), "precision": "fp32"}],
        "input": {"shape": ["N", 1, 48, 48], "dtype": "uint8", "layout": "NCHW", "colour": "gray"},
        "labels": ["happy", "sad"],
        "preprocessing": "in-graph",
        "calibration": {"temperature": 1.5, "abstain_below": 0.4},
        "parameters": 10,
        "macs": 100,
        "provenance": {
            "recipe": "by hand",
            "seed": 1,
            "commit": "abc",
            "data_sha256": "0" * 64,
            "epochs": 0,
            "device": "cpu",
            "created": "2026-01-01T00:00:00Z",
        },
        "licence": "Apache-2.0",
        **changes,
    }


def entry(content: bytes, path: str) -> dict[str, Any]:
    return {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

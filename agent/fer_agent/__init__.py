"""On-device facial-emotion agent: camera frames in, MQTT emotion events out."""

import os

__version__ = "0.1.0"

# Nothing leaves the device but events: official builds of ONNX Runtime from 1.32 on keep a device
# id and report their use to their maker, unless this stands in the environment at their import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

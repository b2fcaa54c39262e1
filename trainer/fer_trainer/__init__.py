"""Training, evaluation and export of the models that fer-agent runs."""

import os

# As in fer_agent: ONNX Runtime reports its use to its maker unless this is set at its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

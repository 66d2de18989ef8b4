"""Adapters to machine-learning frameworks, one file each, imported only when a model of that kind is loaded."""

import os

# ONNX Runtime's own builds report models by name and hash to their maker since 1.29, unless told not to before they
# are imported. What an operator has set stands.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

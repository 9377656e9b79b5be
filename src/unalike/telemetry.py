"""Switch off the telemetry of libraries before they are imported."""

from __future__ import annotations

import os
import sys

# Each is read once, while its library is imported: setting it later has no effect.
VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime resolves its maker's host and writes a device id below ~/.cache
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, which timm imports
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "1",
}


def disable_telemetry() -> None:
    """Set the variables that switch telemetry off, where the user has not set them; call it before each such import.

    ``openvino`` reports an event to Google Analytics through ``openvino_telemetry`` while it is imported, and reads no
    variable. Where that package cannot be imported OpenVINO uses its own silent stub, so the import of that name is blocked
    for this process.
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

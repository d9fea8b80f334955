"""edgelathe fits a trained model to a budget on the device it will run on."""

import os

# From 1.29 on ONNX Runtime's own wheels report home unless told not to; edgelathe sends nothing anywhere.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

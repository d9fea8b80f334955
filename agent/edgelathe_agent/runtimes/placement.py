"""Which execution provider of ONNX Runtime runs how many nodes: asked of the session, not assumed."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from typing import Any, Dict, Sequence

import numpy as np
import onnxruntime as ort

CPU = "CPUExecutionProvider"
#: Makes a session keep what `get_provider_graph_assignment_info` answers (ONNX Runtime 1.24 and later).
RECORD = "session.record_ep_graph_assignment_info"
_NUMPY = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bool)": "bool"}


def placement(session: Any, path: str, chain: Sequence[Any]) -> Dict[str, int]:
    """Nodes by provider; empty when this version of the runtime gives no way to know.

    `chain`: the providers that the session was made with, in their order, names or pairs of name and options.
    """
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    try:
        if ask is not None:
            parts = ask()
            counts = Counter({p.ep_name: 0 for p in parts})
            for part in parts:
                counts[part.ep_name] += len(part.get_nodes())
            return dict(counts)
        return _profiled(path, chain)
    except Exception:  # a runtime that cannot tell is not an error of the model
        return {}


def _profiled(path: str, chain: Sequence[Any]) -> Dict[str, int]:
    """The same from the profile of one run over zeros, in a session of its own."""
    room = os.path.join(path, *[os.pardir] * 3, "tmp")  # beside the store: nothing outside the root is written
    os.makedirs(os.path.normpath(room), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.normpath(room)) as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.enable_profiling, options.profile_file_prefix = True, os.path.join(folder, "nodes")
        session = ort.InferenceSession(path, options, providers=list(chain))
        session.run(None, {i.name: _zeros(i) for i in session.get_inputs()})
        with open(session.end_profiling()) as f:
            events = json.load(f)
    ran = {
        e["args"].get("node_index", e["name"]): e["args"]["provider"]
        for e in events
        if e.get("args", {}).get("provider")
    }
    return dict(Counter(ran.values()))


def _zeros(arg: Any) -> Any:
    dtype = _NUMPY.get(arg.type, arg.type[len("tensor(") : -1])
    return np.zeros([d if isinstance(d, int) else 1 for d in arg.shape], dtype)

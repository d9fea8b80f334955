"""What a quantized file answers, against its labels and the float model's answers on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

EXACT = {"session.x64quantprecision": "1"}  # integer products without 16-bit sums, as Arm and VNNI have them


@dataclass(frozen=True)
class Verdict:
    """Counts of `n` images: answered right, and answered otherwise than by the float model."""

    right: int
    changed: int
    n: int


def answers(path: Path, x: np.ndarray, config: Mapping[str, str]) -> np.ndarray:
    """The class [n] that the model answers for each of the samples, one by one as deployed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.array([session.run(None, {name: x[i : i + 1]})[0].reshape(-1).argmax() for i in range(len(x))])


def judge(path: Path, x: np.ndarray, y: np.ndarray, float_answers: np.ndarray, config: Mapping[str, str]) -> Verdict:
    """The file's answers counted."""
    got = answers(path, x, config)
    return Verdict(int((got == y).sum()), int((got != float_answers).sum()), len(y))

"""ONNX Runtime's I/O binding: inputs and outputs in buffers that stay, on the CPU or on a GPU.

Source: onnxruntime.ai/docs/performance/tune-performance/iobinding.html and the Python API of OrtValue and IOBinding.
"""

from __future__ import annotations

import collections
import time
from statistics import median
from typing import Any, Deque, Dict, List, Optional, Sequence, Tuple

import numpy as np
import onnxruntime as ort

#: Calls whose parts are kept.
_KEPT = 256


class Binding:
    """Bound buffers of one engine. `run` is a whole call, copies included; `outputs(run())` are the model's outputs.

    Buffers on the CPU are read and written in place. On a GPU a call copies its inputs there, computes, and copies the
    outputs back; each of these returns when it is done, so that the clock between them tells their shares.
    """

    def __init__(self, session: Any, buffers: Dict[str, Any], device: str) -> None:
        self._io = session.io_binding()
        self._copied: List[Tuple[Any, Any]] = []
        self._made: List[Any] = []
        self._parts: Deque[Tuple[int, int, int]] = collections.deque(maxlen=_KEPT)
        for name, array in buffers.items():
            value = ort.OrtValue.ortvalue_from_numpy(array, device, 0)
            self._io.bind_ortvalue_input(name, value)
            self._copied.append((value, array))
        sizes = _sizes(session.get_inputs(), buffers)
        for info in session.get_outputs():
            dims = _dims(info.shape, sizes)
            if dims is None:  # known only after a call: the runtime makes room for it at each
                self._io.bind_output(info.name, device, 0)
                continue
            value = ort.OrtValue.ortvalue_from_shape_and_type(dims, _DTYPES[info.type], device, 0)
            self._io.bind_ortvalue_output(info.name, value)
            self._made.append(value)
        self._session = session
        self.run = self._here if device == "cpu" else self._there

    def outputs(self, result: Optional[List[Any]]) -> Sequence[Any]:
        """Arrays of their own for the outputs of the last call."""
        return self._io.copy_outputs_to_cpu() if result is None else result

    def split(self) -> Optional[Dict[str, int]]:
        """Medians of the parts of the latest calls; None on the CPU, where nothing is copied."""
        if not self._parts:
            return None
        names = ("copy_in_ns", "compute_ns", "copy_out_ns")
        return {name: int(median(values)) for name, values in zip(names, zip(*self._parts))}

    def _here(self) -> None:
        self._session.run_with_iobinding(self._io)

    def _there(self) -> List[Any]:
        clock = time.perf_counter_ns
        start = clock()
        for value, array in self._copied:
            value.update_inplace(array)
        copied = clock()
        self._session.run_with_iobinding(self._io)
        computed = clock()
        result: List[Any] = self._io.copy_outputs_to_cpu()
        self._parts.append((copied - start, computed - copied, clock() - computed))
        return result


_DTYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(bool)": np.bool_,
    **{f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}").type for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def _sizes(inputs: Sequence[Any], buffers: Dict[str, Any]) -> Dict[str, int]:
    """What the named open axes are, by the arrays that are fed."""
    named = (pair for i in inputs for pair in zip(i.shape, buffers[i.name].shape))
    return {name: size for name, size in named if isinstance(name, str)}


def _dims(declared: Sequence[Any], sizes: Dict[str, int]) -> Optional[List[int]]:
    """An output's shape where the model declares it in terms of its inputs'; None where it does not."""
    dims = [d if isinstance(d, int) else sizes.get(d) for d in declared]
    return [d for d in dims if d is not None] if all(dims) and declared else None

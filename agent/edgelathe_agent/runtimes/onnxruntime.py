"""ONNX Runtime: plain `session.run` on one sample, as a program that uses its Python API runs it."""

from __future__ import annotations

import copy
import functools
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np
import onnxruntime as ort

from edgelathe_agent.protocol import AgentError
from edgelathe_agent.runtimes import Engine, one_line, shape
from edgelathe_agent.runtimes.placement import CPU, RECORD, placement
from edgelathe_agent.trace import Profile

_DTYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
}  # fmt: skip
_ERROR_AND_ABOVE = 3


def describe(_: str) -> Tuple[str, List[str]]:
    """Version and the execution providers that this build has."""
    return ort.__version__, list(ort.get_available_providers())


def load(
    _: str, path: str, provider: str, threads: int, config: Dict[str, Any], root: str, profile: bool = False
) -> Engine:
    """A session on `provider`, with the CPU for the nodes that it does not take. Raises AgentError("model")."""
    return Session(path, provider, threads, config, Profile(root) if profile else None)


class Session(Engine):
    """One InferenceSession. Spinning and all else stay at the runtime's defaults unless `config` says otherwise."""

    def __init__(
        self, path: str, provider: str, threads: int, config: Dict[str, Any], profile: Optional[Profile] = None
    ) -> None:
        self._path, self._asked, self._profile = path, provider, profile
        self.warnings = []
        wanted = [provider, CPU] if provider != CPU else [CPU]
        usable = [p for p in wanted if p in ort.get_available_providers()]
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _ERROR_AND_ABOVE
        if profile:
            options.enable_profiling, options.profile_file_prefix = True, profile.prefix
        try:
            for key, value in config.items():
                options.add_session_config_entry(key, str(value))
            if provider != CPU:
                options.add_session_config_entry(RECORD, "1")
            self._session = ort.InferenceSession(path, options, providers=usable)
        except Exception as e:  # onnxruntime raises a dozen classes of its own
            raise AgentError("model", one_line(e), "check it with `edgelathe inspect`") from None
        if profile:
            profile.hold()
        self.inputs = [_info(i) for i in self._session.get_inputs()]
        self.outputs = [_info(o) for o in self._session.get_outputs()]
        self.provider = CPU

    def place(self) -> None:
        """Find the provider that really runs the nodes; say so where it is not the one that was asked for."""
        if self._asked == CPU:
            return
        if self._asked not in ort.get_available_providers():
            there = ", ".join(ort.get_available_providers())
            self.warnings.append(
                f"{self._asked} is not in this onnxruntime (it has {there}): every node runs on the CPU"
            )
        elif self._asked not in self._session.get_providers():
            self.warnings.append(f"{self._asked} did not start: every node runs on the CPU")
        else:
            counts = placement(self._session, self._path, self._asked)
            total, mine = sum(counts.values()), counts.get(self._asked, 0)
            self.provider = max(counts, key=lambda p: counts[p], default=CPU)
            if not counts:
                self.warnings.append("which provider runs the nodes could not be found out")
            elif mine < total:
                rest = ", ".join(f"{n} on {p}" for p, n in sorted(counts.items()) if p != self._asked)
                self.warnings.append(f"{self._asked} runs {mine} of {total} nodes, {rest}")

    def fork(self) -> Session:
        """The same InferenceSession, whose `run` may be called from several threads at once."""
        return copy.copy(self)

    def bind(self, buffers: Dict[str, Any], batch: int) -> None:
        """`run` reads the arrays in place."""
        self.run = functools.partial(self._session.run, None, dict(buffers))

    def stage(self) -> None:
        """Nothing to do: `run` sees the arrays themselves."""

    def profile(self) -> Iterable[Dict[str, Any]]:
        """The events of the session's own profile, which ends here."""
        if self._profile is None:
            raise AgentError("request", "the session was opened without a profile", "open it with `profile`")
        self._session.end_profiling()
        return self._profile.events()

    def fetch(self, result: Any) -> Sequence[Any]:
        """The arrays that `run` returned."""
        for info, value in zip(self.outputs, result):
            if not isinstance(value, np.ndarray) or value.dtype == object:
                raise AgentError(
                    "model", "output {} is no tensor of numbers".format(info["name"]), "export the model without it"
                )
        return list(result)


def _info(arg: Any) -> Dict[str, Any]:
    kind = arg.type[len("tensor(") : -1] if arg.type.startswith("tensor(") else arg.type
    dtype = _DTYPES.get(kind, kind)
    return {"name": arg.name, "shape": shape(arg.shape or []), "dtype": dtype, "scale": None, "zero_point": None}

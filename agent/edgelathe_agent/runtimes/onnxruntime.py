"""ONNX Runtime: plain `session.run` on one sample, as a program that uses its Python API runs it, on a GPU with its
buffers there."""

from __future__ import annotations

import copy
import functools
import importlib.util
import time
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np
import onnxruntime as ort

from edgelathe_agent.protocol import AgentError
from edgelathe_agent.runtimes import Engine, Entries, choice, entries, one_line, providers, shape
from edgelathe_agent.runtimes.binding import Binding
from edgelathe_agent.runtimes.placement import CPU, RECORD, placement
from edgelathe_agent.trace import Profile

_DTYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
}  # fmt: skip
_ERROR_AND_ABOVE = 3
#: Providers whose buffers are on a GPU that ONNX Runtime's Python API can put values on.
_ON_GPU = (providers.CUDA, providers.TENSORRT)


def describe(_: str) -> Tuple[str, List[str]]:
    """Version and the execution providers that this build has."""
    return ort.__version__, list(ort.get_available_providers())


def load(
    name: str, path: str, provider: str, threads: int, config: Dict[str, Any], root: str, profile: bool = False
) -> Engine:
    """A session on `provider`, with the CPU for the nodes that it does not take.

    Raises AgentError: "model", and "request" for an entry or option that is not known.
    """
    return Session(path, provider, threads, entries(config, name, ("io_binding",)), root, profile)


class Session(Engine):
    """One InferenceSession. Spinning and all else stay at the runtime's defaults unless `config` says otherwise."""

    def __init__(
        self, path: str, provider: str, threads: int, config: Entries, root: str, profile: bool = False
    ) -> None:
        self._path, self._asked = path, provider
        self.warnings = []
        self.provider = CPU
        self._bound: Optional[Binding] = None
        self._failed = ""
        self._io_binding = choice(config, "io_binding", ("0", "1")) == "1"
        there = self._asked in ort.get_available_providers()
        providers.check(provider, config.provider)
        self._plan = providers.plan(
            provider if there else CPU, threads, config.provider if there else {}, path, root, ort.__version__
        )
        self._profile = Profile(root) if profile else None
        options = self._options(config)
        if there and provider in _ON_GPU:
            _preload()
        start = time.perf_counter()
        self._session = self._start(options, self._plan.chain)
        if self._profile is not None:
            self._profile.hold()
        self.inputs = [_info(i) for i in self._session.get_inputs()]
        self.outputs = [_info(o) for o in self._session.get_outputs()]
        self._used = self._session.get_providers()
        if self._plan.engines and self._asked in self._used:
            self._call_once()
            self.build_ms = self._plan.build_ms((time.perf_counter() - start) * 1e3)

    def place(self) -> None:
        """Find the provider that really runs the nodes; say so where it is not the one that was asked for."""
        if self._asked == CPU:
            return
        if self._asked not in ort.get_available_providers():
            there = ", ".join(ort.get_available_providers())
            self.warnings.append(
                f"{self._asked} is not in this onnxruntime (it has {there}): every node runs on the CPU"
            )
            return
        if self._asked not in self._used:
            why = providers.missing_library(self._asked, ort.__file__) or self._failed
            self.warnings.append(f"{self._asked} did not start" + (f" ({why})" if why else ""))
        if self._used == [CPU]:
            self.warnings[-1] += ": every node runs on the CPU"
            return
        counts = placement(self._session, self._path, [c for c in self._plan.chain if c[0] in self._used])
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

    def bind(self, buffers: Dict[str, Any], batch: int) -> None:  # noqa: ARG002 - it is in the arrays' shapes
        """`run` reads the arrays in place, on a GPU it copies them there."""
        on_gpu = self._on_gpu()
        if on_gpu or self._io_binding:
            self._bound = Binding(self._session, buffers, "cuda" if on_gpu else "cpu")
            self.run = self._bound.run
        else:
            self.run = functools.partial(self._session.run, None, dict(buffers))

    def stage(self) -> None:
        """Nothing to do: `run` sees the arrays themselves."""

    def fetch(self, result: Any) -> Sequence[Any]:
        """The arrays that `run` returned."""
        values = list(result if self._bound is None else self._bound.outputs(result))
        for info, value in zip(self.outputs, values):
            if not isinstance(value, np.ndarray) or value.dtype == object:
                raise AgentError(
                    "model", "output {} is no tensor of numbers".format(info["name"]), "export the model without it"
                )
        return values

    @property
    def split(self) -> Optional[Dict[str, int]]:
        """The parts of the latest calls on a GPU."""
        return None if self._bound is None else self._bound.split()

    def gpu_bytes(self) -> Optional[int]:
        """What this process holds on a GPU, where one is used."""
        if not self._on_gpu():
            return None
        from edgelathe_agent.runtimes import cuda

        return cuda.own_memory()

    def profile(self) -> Iterable[Dict[str, Any]]:
        """The events of the session's own profile, which ends here."""
        if self._profile is None:
            raise AgentError("request", "the session was opened without a profile", "open it with `profile`")
        self._session.end_profiling()
        return self._profile.events()

    def _on_gpu(self) -> bool:
        return any(provider in _ON_GPU for provider in self._used)

    def _options(self, config: Entries) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._plan.threads, 1
        options.log_severity_level = _ERROR_AND_ABOVE
        if self._profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, self._profile.prefix
        try:
            for key, value in {**self._plan.entries, **config.session}.items():
                options.add_session_config_entry(key, value)
            if len(self._plan.chain) > 1:
                options.add_session_config_entry(RECORD, "1")
        except Exception as e:  # onnxruntime raises a dozen classes of its own
            raise AgentError("request", one_line(e), "see onnxruntime_session_options_config_keys.h") from None
        return options

    def _start(self, options: Any, chain: Sequence[Tuple[str, Dict[str, str]]]) -> Any:
        """A session on the providers of the chain, or on those after the first that does not start.

        ONNX Runtime's own fallback is left out: it tells nobody why.
        """
        for first in range(len(chain)):
            try:
                return ort.InferenceSession(self._path, options, providers=list(chain[first:]), enable_fallback=0)
            except Exception as e:
                if self._plan.refused(str(e)):
                    mend = f"see the page of {self._asked} in ONNX Runtime's documentation"
                    raise AgentError("request", f"{self._asked}: {providers.reason(str(e))}", mend) from None
                self._failed, last = self._failed or providers.reason(str(e)), e
        raise AgentError("model", one_line(last), "check it with `edgelathe inspect`")

    def _call_once(self) -> None:
        """TensorRT builds the engine of a model with open axes at its first call, which is not to be timed."""
        if any(d is None for i in self.inputs for d in i["shape"][1:]):
            self.warnings.append("open axes beside the batch: the first call builds the engine")
            return
        feed = {i["name"]: np.zeros([d or 1 for d in i["shape"]], i["dtype"]) for i in self.inputs}
        try:
            self._session.run(None, feed)
        except Exception as e:
            raise AgentError("model", one_line(e), "check it with `edgelathe inspect`") from None


def _preload() -> None:
    """CUDA's libraries where they came as packages of NVIDIA's, which the loader does not find by itself (1.21)."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None and importlib.util.find_spec("nvidia") is not None:
        preload()


def _info(arg: Any) -> Dict[str, Any]:
    kind = arg.type[len("tensor(") : -1] if arg.type.startswith("tensor(") else arg.type
    dtype = _DTYPES.get(kind, kind)
    return {"name": arg.name, "shape": shape(arg.shape or []), "dtype": dtype, "scale": None, "zero_point": None}

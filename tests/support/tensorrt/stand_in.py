"""A stand-in for TensorRT's Python module: the calls of 8.2 or of 10, over ONNX Runtime.

Copied as `tensorrt.py` to a folder on the path; STAND_IN_TENSORRT says which release it is. Names and order of
arguments: python/src of the releases, github.com/NVIDIA/TensorRT.
"""

import ctypes
import enum
import json
import os
from collections import namedtuple
from pathlib import Path

import numpy as np

__version__ = os.environ.get("STAND_IN_TENSORRT", "10.3.0")
_NEW = int(__version__.split(".")[0]) >= 10
_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32}
_KINDS = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int32)": "INT32", "tensor(int64)": "INT32"}

DataType = enum.Enum("DataType", ["FLOAT", "HALF", "INT8", "INT32", "BOOL"])
BuilderFlag = enum.Enum("BuilderFlag", ["FP16", "INT8", "SPARSE_WEIGHTS"])
NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0})
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"])
LayerInformationFormat = enum.Enum("LayerInformationFormat", ["ONELINE", "JSON"])
_Error = namedtuple("_Error", ["desc"])


class ILogger:
    Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


class IProfiler:
    pass


class _Cache:
    def __init__(self, data):
        self._data = data

    def serialize(self):
        return memoryview(self._data + b"t")


class _Config:
    def __init__(self):
        self.flags, self.profiles, self.cache = set(), [], None
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_flag(self, flag):
        self.flags.add(BuilderFlag(flag).name)

    def add_optimization_profile(self, profile):
        self.profiles.append(profile.shapes)

    def create_timing_cache(self, data):
        return _Cache(bytes(data))

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        self.cache = cache

    def get_timing_cache(self):
        return self.cache


class _Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, low, best, high):
        assert low == best == high
        self.shapes[name] = list(best)


class Builder:
    def __init__(self, log):
        self._log = log

    def create_network(self, flags):
        assert flags == 1
        return type("Network", (), {"model": None})()

    def create_builder_config(self):
        return _Config()

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        opened = any(not isinstance(d, int) for i in _session(network.model).get_inputs() for d in i.shape)
        if opened and not config.profiles:
            self._log.log(ILogger.Severity.ERROR, "Network has dynamic inputs,\nbut no profile")
            return None
        note = {"flags": sorted(config.flags), "shapes": (config.profiles or [{}])[0], "version": __version__}
        return memoryview(json.dumps(note).encode() + b"\n" + network.model)


class OnnxParser:
    def __init__(self, network, log):
        self._network, self._errors = network, []

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, number):
        return self._errors[number]

    def parse_from_file(self, path):
        self._network.model = Path(path).read_bytes()
        try:
            _session(self._network.model)
        except Exception as e:
            said = str(e)
            self._errors.append(_Error(lambda: said))
        return not self._errors


class Runtime:
    def __init__(self, log):
        self._log = log

    def deserialize_cuda_engine(self, data):
        note, _, model = bytes(data).partition(b"\n")
        try:
            found = json.loads(note)
        except ValueError:
            self._log.log(ILogger.Severity.ERROR, "magic tag does not match")
            return None
        return (_NewEngine if _NEW else _OldEngine)(found, _session(model))


class _Engine:
    def __init__(self, note, session):
        self._note, self._session = note, session
        self._args = [*session.get_inputs(), *session.get_outputs()]

    def create_execution_context(self):
        return (_NewContext if _NEW else _OldContext)(self._session)

    def create_engine_inspector(self):
        layers = [{"Name": "all of it", "LayerType": "+".join(self._note["flags"]) or "plain"}]
        made = type("Inspector", (), {})()
        made.get_engine_information = lambda kind: json.dumps({"Layers": layers, "Bindings": []})
        return made

    def _kind(self, arg):
        return DataType[_KINDS[arg.type]]


class _NewEngine(_Engine):
    @property
    def num_io_tensors(self):
        return len(self._args)

    def get_tensor_name(self, number):
        return self._args[number].name

    def get_tensor_dtype(self, name):
        return self._kind(next(a for a in self._args if a.name == name))


class _OldEngine(_Engine):
    @property
    def num_bindings(self):
        return len(self._args)

    def get_binding_name(self, number):
        return self._args[number].name

    def get_binding_dtype(self, number):
        return self._kind(self._args[number])


class _Context:
    def __init__(self, session):
        self._session, self._shapes, self.profiler = session, {}, None
        self._inputs, self._outputs = session.get_inputs(), session.get_outputs()

    def _set(self, name, dims):
        assert name in [i.name for i in self._inputs]
        self._shapes[name] = tuple(dims)
        return True

    def _shape(self, name):
        if name in self._shapes:
            return self._shapes[name]
        fed = {i.name: np.ones(self._shapes[i.name], self._dtype(i)) for i in self._inputs}
        names = [o.name for o in self._outputs]
        return self._session.run(None, fed)[names.index(name)].shape

    def _dtype(self, arg):
        return _NUMPY[_KINDS[arg.type]]

    def _run(self, addresses, stream):
        assert stream
        fed = {i.name: self._at(addresses[i.name], self._shapes[i.name], self._dtype(i)) for i in self._inputs}
        for info, value in zip(self._outputs, self._session.run(None, fed), strict=True):
            ctypes.memmove(addresses[info.name], value.ctypes.data, value.nbytes)
        if self.profiler is not None:
            self.profiler.report_layer_time("all of it", 0.25)
        return True

    def _at(self, address, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape).copy()


class _NewContext(_Context):
    def __init__(self, session):
        super().__init__(session)
        self._addresses = {}

    def set_input_shape(self, name, dims):
        return self._set(name, dims)

    def get_tensor_shape(self, name):
        return self._shape(name)

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle):
        return self._run(self._addresses, stream_handle)


class _OldContext(_Context):
    def _name(self, number):
        return [a.name for a in (*self._inputs, *self._outputs)][number]

    def set_binding_shape(self, number, dims):
        return self._set(self._name(number), dims)

    def get_binding_shape(self, number):
        return self._shape(self._name(number))

    def execute_async_v2(self, bindings, stream_handle):
        return self._run({self._name(i): at for i, at in enumerate(bindings)}, stream_handle)


def _session(model):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

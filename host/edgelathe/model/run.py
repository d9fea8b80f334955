"""Models run on the host, one sample at a time, as they will be on the device."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import UserError
from edgelathe.core.provider_options import of_agent, of_provider, of_runtime
from edgelathe.model import external
from edgelathe.model import onnx as onnx_model

if TYPE_CHECKING:
    import onnx

    from edgelathe.core.signature import Signature
    from edgelathe.model.types import Model

Arrays = Mapping[str, NDArray[Any]]
Call = Callable[[Arrays], list[NDArray[Any]]]

_TFLITE = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}  # in order of preference
_LARGE = 1 << 28  # bytes of a model whose memory counts
_RUN_MEND = "check that the data are what the model takes, and export it again"


def session(model: Model, options: SessionOptions | None = None) -> Call:
    """A function from input arrays by name (batch axis included) to output arrays in the model's order.

    Default options: ONNX Runtime, or ai-edge-litert and else tflite-runtime, on one CPU thread. Raises UserError where
    the runtime refuses the model.
    """
    chosen = options or default_options(model)
    return _onnxruntime(model, chosen) if model.format == "onnx" else _tflite(model, chosen)


def prove(model: Model) -> None:
    """Whether the host's runtime takes the model, its operations and shapes. Raises UserError with its words."""
    if model.format == "onnx":
        # Kernels copy weights into a form of their own, and optimizations compute what constants make of constants:
        # each takes the memory of a large model once more, or twice where its weights are stored as float16.
        lean = model.bytes > _LARGE
        config = {"session.disable_prepacking": "1"} if lean else {}
        chosen = replace(default_options(model), config=config)
        _onnxruntime(onnx_model.apart(model) if lean else model, chosen, optimized=not lean)
    else:  # XNNPACK announces itself on stderr, and has no say in this
        _interpreter(model, default_options(model), delegates=False)


def outputs(model: Model, inputs: Arrays, options: SessionOptions | None = None) -> list[NDArray[Any]]:
    """Outputs for n samples: one array [n, ...] per model output, in its dtype.

    `inputs` are arrays [n, ...] by input name, as `dataset.bind` gives them. Samples go one at a time, or in the
    model's fixed batch, whose last one is filled up with copies of the last sample.
    """
    call, batch = session(model, options), batch_size(model.signature)
    n = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, n, batch):
        rows = np.minimum(np.arange(start, start + batch), n - 1)
        fed = {k: v[start : start + 1] if batch == 1 else v[rows] for k, v in inputs.items()}
        parts.append([_by_sample(np.asarray(o), batch)[: n - start] for o in call(fed)])
    columns = list(zip(*parts, strict=True))
    for info, column in zip(model.signature.outputs, columns, strict=True):
        shapes = sorted({o.shape[1:] for o in column})
        if len(shapes) > 1:
            what = f"output '{info.name}' has shape {shapes[0]} for one sample and {shapes[1]} for another"
            raise UserError(model.name, what, "only outputs of one shape are supported")
    return [np.concatenate(column) for column in columns]


def _by_sample(output: NDArray[Any], batch: int) -> NDArray[Any]:
    """Samples first: an output of one sample may come without an axis for it."""
    return output if output.ndim and output.shape[0] == batch else output[None]


def available(options: SessionOptions) -> bool:
    """Whether this host has the runtime and the provider."""
    if options.runtime == "onnxruntime":
        import onnxruntime as ort

        return options.provider in ort.get_available_providers()
    return options.runtime in _TFLITE and importlib.util.find_spec(_TFLITE[options.runtime]) is not None


def has_fixed_batch(signature: Signature) -> bool:
    """Whether an input declares how many samples run at once."""
    return any(bool(i.shape and i.shape[0]) for i in signature.inputs)


def batch_size(signature: Signature) -> int:
    """The fixed batch of a model; 1 where its first axis is open."""
    return max((i.shape[0] or 1 for i in signature.inputs if i.shape), default=1)


def real(values: list[NDArray[Any]], signature: Signature) -> list[NDArray[np.float32]]:
    """Outputs as real numbers: integers with a scale through it, all others cast to float32."""
    return [
        v.astype(np.float32)
        if o.scale is None
        else (v.astype(np.float32) - np.float32(o.zero_point or 0)) * np.float32(o.scale)
        for v, o in zip(values, signature.outputs, strict=True)
    ]


def default_options(model: Model) -> SessionOptions:
    """The host's default session: one CPU thread. Raises UserError where no TFLite runtime is installed."""
    if model.format == "onnx":
        return SessionOptions("onnxruntime", "CPUExecutionProvider")
    for runtime in _TFLITE:
        if available(options := SessionOptions(runtime, "CPU")):
            return options
    raise UserError(model.name, "no TFLite runtime on this machine", "pip install ai-edge-litert")


def _onnxruntime(model: Model, options: SessionOptions, *, optimized: bool = True) -> Call:
    import onnxruntime as ort

    if not available(options):
        have = ", ".join(ort.get_available_providers())
        raise UserError(model.name, f"ONNX Runtime here has no {options.provider}", f"choose from {have}")
    so = ort.SessionOptions()
    so.intra_op_num_threads, so.inter_op_num_threads, so.log_severity_level = options.threads, 1, 4
    if not optimized:
        so.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in of_runtime(options.config).items():
        so.add_session_config_entry(key, str(value))
    try:
        run = open_onnx(model, so, [(options.provider, of_provider(options.config))])
    except Exception as e:  # onnxruntime raises a dozen of its own kinds
        raise UserError(
            model.name, f"ONNX Runtime refuses the model: {one_line(e)}", "export it for standard operators"
        ) from e

    def call(inputs: Arrays) -> list[NDArray[Any]]:
        try:
            return list(run.run(None, dict(inputs)))
        except Exception as e:
            raise UserError(model.name, f"ONNX Runtime fails to run the model: {one_line(e)}", _RUN_MEND) from e

    return call


def open_onnx(model: Model, options: Any, providers: list[Any]) -> Any:
    """An `onnxruntime.InferenceSession` on a model, whose external weights it reads in place: keep both."""
    import onnxruntime as ort

    if model.external is not None:
        found = external.tensors(onnx_model.skeleton(model))
        values = [_value(t, part) for t, part in zip(found, model.external.parts, strict=True)]
        options.add_external_initializers([t.name for t in found], values)
    return ort.InferenceSession(model.data, options, providers=providers)


def _value(tensor: onnx.TensorProto, part: memoryview) -> Any:
    """An OrtValue on the part's own memory; types that numpy lacks come as the integers of their size."""
    import onnxruntime as ort

    values = external.array(tensor, part)
    if values.dtype.isbuiltin == 1:
        return ort.OrtValue.ortvalue_from_numpy(values)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(values.view(f"u{values.itemsize}"), tensor.data_type)


def _tflite(model: Model, options: SessionOptions) -> Call:
    interpreter = _interpreter(model, options)
    ins = [(i.name, d) for i, d in zip(model.signature.inputs, interpreter.get_input_details(), strict=True)]
    outs = [d["index"] for d in interpreter.get_output_details()]

    def call(inputs: Arrays) -> list[NDArray[Any]]:
        try:
            for name, detail in ins:
                if inputs[name].shape != tuple(detail["shape"]):
                    interpreter.resize_tensor_input(detail["index"], inputs[name].shape)
                    interpreter.allocate_tensors()
                    detail["shape"] = inputs[name].shape
                interpreter.set_tensor(detail["index"], inputs[name])
            interpreter.invoke()
        except (ValueError, RuntimeError) as e:
            raise UserError(model.name, f"TFLite fails to run the model: {one_line(e)}", _RUN_MEND) from e
        return [interpreter.get_tensor(i) for i in outs]

    return call


def _interpreter(model: Model, options: SessionOptions, *, delegates: bool = True) -> Any:
    if not available(options):
        raise UserError(model.name, f"no {options.runtime} on this machine", f"pip install {options.runtime}")
    module = importlib.import_module(f"{_TFLITE[options.runtime]}.interpreter")
    kind, ours = module.OpResolverType, of_agent(options.config)
    resolver = kind.AUTO if delegates and ours.get("xnnpack") != "0" else kind.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    if ours.get("kernels") == "reference":
        resolver = kind.BUILTIN_REF
    try:
        with hushed():
            interpreter = module.Interpreter(
                model_content=model.data, num_threads=options.threads, experimental_op_resolver_type=resolver
            )
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as e:
        raise UserError(model.name, f"TFLite refuses the model: {one_line(e)}", _tflite_mend(str(e))) from e
    return interpreter


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """TFLite tells on the process's stderr that it made a delegate, and has no switch for it; errors are raised."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _tflite_mend(text: str) -> str:
    if "Flex" in text or "Select TensorFlow op" in text:
        return "convert it without SELECT_TF_OPS; the runtimes on devices have built-in operations only"
    return "convert it with built-in operations only"


def one_line(e: BaseException, limit: int = 240) -> str:
    """An exception's text in one line of bounded length, without ONNX Runtime's codes in front."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(e).split()))
    return text if len(text) <= limit else text[: limit - 3] + "..."

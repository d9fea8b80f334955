"""Engines: entries and options of a session, bound buffers, forks, batches, kept engines, what an ONNX file says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edgelathe_agent import engines
from edgelathe_agent.protocol import AgentError
from edgelathe_agent.runtimes import cuda, entries, module, onnx_file, providers
from edgelathe_agent.runtimes.binding import Binding

CPU = "CPUExecutionProvider"
GPU = {"name": "Orin", "capability": "8.7"}


def images(data_dir: Path, n: int) -> np.ndarray:
    with np.load(data_dir / "cifar10_resnet8" / "eval.npz") as z:
        return z["x"][:n].astype(np.float32)


@pytest.fixture
def load(tmp_path):
    """An engine of this process, from the bytes of a model."""

    def make(runtime: str, model: bytes, provider: str = CPU, threads: int = 1, profile: bool = False, **config: str):
        path = tmp_path / hashlib.sha256(model).hexdigest()
        path.write_bytes(model)
        named = {k.replace("__", "."): v for k, v in config.items()}
        return module(runtime).load(runtime, str(path), provider, threads, named, str(tmp_path), profile)

    return make


def answer(engine, **arrays: np.ndarray) -> list[np.ndarray]:
    engine.bind(arrays, 1)
    engine.stage()
    return list(engine.fetch(engine.run()))


def test_entries_are_told_apart_by_whom_they_are_for():
    found = entries({"session.x": 1, "provider.y": "2", "edgelathe.z": "3"}, "onnxruntime", ("z",))
    assert found == ({"session.x": "1"}, {"y": "2"}, {"z": "3"})
    with pytest.raises(AgentError, match=r"onnxruntime knows no entry 'edgelathe\.q'"):
        entries({"edgelathe.q": "1"}, "onnxruntime", ("z",))


def test_bound_buffers_give_the_same_answers_and_new_ones_with_new_samples(load, data_dir):
    model = (data_dir / "cifar10_resnet8" / "model.onnx").read_bytes()
    plain, bound = load("onnxruntime", model), load("onnxruntime", model, edgelathe__io_binding="1")
    x = images(data_dir, 2)
    buffer = x[:1].copy()
    (first,) = answer(bound, input=buffer)
    kept = first.copy()
    assert (first == answer(plain, input=x[:1].copy())[0]).all()
    buffer[:] = x[1:]
    bound.stage()
    (second,) = bound.fetch(bound.run())
    assert (second == answer(plain, input=x[1:].copy())[0]).all()
    assert (first == kept).all()
    assert bound.split is None


def test_bound_outputs_whose_size_only_a_call_tells(load, onnx_model):
    model = onnx_model([("NonZero", ["x"], ["where"], {})], {"x": ("FLOAT", [1, 4])}, {"where": ("INT64", [2, "k"])})
    engine = load("onnxruntime", model, edgelathe__io_binding="1")
    (where,) = answer(engine, x=np.array([[0, 1, 0, 1]], np.float32))
    assert where.tolist() == [[0, 0], [1, 3]]


def test_a_call_that_copies_tells_its_parts(data_dir):
    """As on a GPU, with copies from memory to memory."""
    session = ort.InferenceSession(data_dir / "cifar10_resnet8" / "model.onnx", providers=[CPU])
    x = images(data_dir, 1)
    bound = Binding(session, {"input": x}, "cpu")
    (got,) = bound.outputs(bound._there())
    assert (got == session.run(None, {"input": x})[0]).all()
    parts = bound.split()
    assert list(parts) == ["copy_in_ns", "compute_ns", "copy_out_ns"]
    assert all(ns > 0 for ns in parts.values())


@pytest.mark.parametrize("binding", ["0", "1"])
def test_forks_share_the_model_and_not_the_buffers(load, data_dir, binding):
    model = (data_dir / "cifar10_resnet8" / "model.onnx").read_bytes()
    one = load("onnxruntime", model, edgelathe__io_binding=binding)
    other = one.fork()
    x = images(data_dir, 2)
    wanted = [answer(one, input=x[i : i + 1].copy())[0] for i in range(2)]
    one.bind({"input": x[:1].copy()}, 1)
    other.bind({"input": x[1:].copy()}, 1)
    results = [e.run() for e in (one, other)]
    got = [e.fetch(r)[0] for e, r in zip((one, other), results, strict=True)]
    assert all((g == w).all() for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("runtime", ["ai-edge-litert", "tflite-runtime"])
def test_tflite_batches_by_resizing_and_forks_to_another_interpreter(load, data_dir, runtime):
    pytest.importorskip(runtime.replace("-", "_") + ".interpreter")
    model = (data_dir / "cifar10_resnet8" / "model.tflite").read_bytes()
    one = load(runtime, model, "CPU")
    name = one.inputs[0]["name"]
    x = images(data_dir, 3)
    singles = np.concatenate([answer(one, **{name: x[i : i + 1]})[0] for i in range(3)])
    other = one.fork()
    (batch,) = answer(other, **{name: x})
    np.testing.assert_allclose(batch, singles, rtol=1e-4, atol=1e-6)
    assert one.fetch(one.run())[0].shape == (1, 10)


@pytest.mark.parametrize("runtime", ["ai-edge-litert", "tflite-runtime"])
def test_tflite_without_xnnpack_and_with_plain_kernels(load, data_dir, runtime, capfd):
    pytest.importorskip(runtime.replace("-", "_") + ".interpreter")
    model = (data_dir / "cifar10_resnet8" / "model.tflite").read_bytes()
    x = images(data_dir, 1)
    said, answers = [], []
    for config in ({}, {"edgelathe__xnnpack": "0"}, {"edgelathe__kernels": "reference"}):
        engine = load(runtime, model, "CPU", **config)
        answers.append(answer(engine, **{engine.inputs[0]["name"]: x})[0])
        said.append("XNNPACK" in capfd.readouterr().err)
    assert not any(said[1:])  # who makes the delegate says so once a process
    for got in answers[1:]:
        np.testing.assert_allclose(got, answers[0], rtol=1e-3, atol=1e-5)
    with pytest.raises(AgentError, match="is 'maybe'"):
        load(runtime, model, "CPU", edgelathe__xnnpack="maybe")
    with pytest.raises(AgentError, match=r"no session entry 'provider\.x'"):
        load(runtime, model, "CPU", provider__x="1")


@pytest.mark.parametrize("provider", [CPU, "XnnpackExecutionProvider"])
def test_an_option_that_the_provider_would_ignore_is_refused(load, linear, provider):
    with pytest.raises(AgentError, match=f"{provider} has no option 'threads'") as e:
        load("onnxruntime", linear, provider, provider__threads="2")
    assert e.value.kind == "request"


def test_a_bad_session_entry_or_option_is_no_fault_of_the_model(load, linear):
    with pytest.raises(AgentError) as e:
        load("onnxruntime", linear, **{"k" * 2000: "1"})
    assert e.value.kind == "request"
    made = providers.plan("CUDAExecutionProvider", 1, {"device_idd": "0"}, "/x", "/x", "1.20")
    assert made.refused("Unknown provider option: device_idd")
    assert not made.refused("CUDA failure 35: driver version is insufficient")


def test_xnnpack_has_the_threads_and_the_session_does_not_spin(tmp_path):
    made = providers.plan("XnnpackExecutionProvider", 4, {}, "/x", str(tmp_path), "1.20")
    assert made.chain == [("XnnpackExecutionProvider", {"intra_op_num_threads": "4"}), (CPU, {})]
    assert (made.threads, made.entries) == (1, {"session.intra_op.allow_spinning": "0"})


@pytest.mark.parametrize(
    ("version", "cache"),
    [
        ("1.11.0", {"trt_engine_cache_enable", "trt_engine_cache_path"}),
        ("1.16.3", {"trt_engine_cache_enable", "trt_engine_cache_path", "trt_timing_cache_enable"}),
        ("1.20.1+cu12", {"trt_engine_cache_enable", "trt_engine_cache_path", "trt_timing_cache_enable",
                         "trt_timing_cache_path"}),
    ],
)  # fmt: skip
def test_tensorrt_keeps_its_engines_under_the_root_by_the_options_that_the_version_has(
    tmp_path, linear, version, cache
):
    path = tmp_path / ("a" * 64)
    path.write_bytes(linear)
    options = {"trt_fp16_enable": "True", "device_id": "0"}
    made = providers.plan("TensorrtExecutionProvider", 1, options, str(path), str(tmp_path), version)
    assert [name for name, _ in made.chain] == ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU]
    trt, gpu = made.chain[0][1], made.chain[1][1]
    assert set(trt) == cache | set(options)
    assert gpu == {"device_id": "0"}
    folder = Path(trt["trt_engine_cache_path"])
    assert folder.parents[1] == tmp_path / "engines"
    assert folder.name.startswith("a" * 64)
    assert made.build_ms(7.0) == 0.0
    (folder / "TensorrtExecutionProvider_TRTKernel_graph_0_0_fp16_sm87.engine").write_bytes(b"")
    assert made.build_ms(7.0) == 7.0
    again = providers.plan("TensorrtExecutionProvider", 1, options, str(path), str(tmp_path), version)
    assert again.engines == made.engines
    assert again.build_ms(7.0) == 0.0
    with pytest.raises(AgentError, match="the agent's to choose"):
        providers.plan(
            "TensorrtExecutionProvider", 1, {"trt_engine_cache_path": "/"}, str(path), str(tmp_path), version
        )


def test_engines_of_other_versions_go_and_those_of_another_gpu_stay(tmp_path):
    def kept(version: str, gpu: dict[str, str], **built: str) -> Path:
        return Path(engines.folder(str(tmp_path), "tensorrt", {"tensorrt": version}, gpu, "m", built))

    old, other = kept("8.2.1", GPU), Path(engines.folder(str(tmp_path), "onnxruntime", {"tensorrt": "1"}, GPU, "m", {}))
    new, half, elsewhere = kept("8.5.2", GPU), kept("8.5.2", GPU, fp16="1"), kept("8.5.2", {**GPU, "name": "Nano"})
    assert not old.exists()
    assert len({new, half, elsewhere}) == 3
    assert all(p.is_dir() for p in (other, new, half, elsewhere))
    assert new.parent == half.parent != elsewhere.parent


def test_the_longest_unused_engines_go_when_all_take_too_much(tmp_path, monkeypatch):
    folders = []
    for number, model in enumerate("abcd"):
        own = Path(engines.folder(str(tmp_path), "tensorrt", {}, GPU, model, {}))
        (own / "engine.plan").write_bytes(bytes(1000))
        os.utime(own, (number, number))
        folders.append(own)
    monkeypatch.setattr(engines, "KEEP_BYTES", 2500)
    engines.folder(str(tmp_path), "tensorrt", {}, GPU, "a", {})
    assert [f.is_dir() for f in folders] == [True, False, False, True]


@pytest.mark.parametrize("name", ["cifar10_resnet8/model.onnx", "imagenet_mobilenetv2/model.onnx"])
def test_an_onnx_file_says_of_its_inputs_what_the_runtime_says(data_dir, name):
    path = data_dir / name
    if not path.is_file():
        pytest.skip(f"no {name}")
    found, session = onnx_file.read(str(path)), ort.InferenceSession(path, providers=[CPU])
    for infos, args in ((found.inputs, session.get_inputs()), (found.outputs, session.get_outputs())):
        wanted = [(a.name, [d if isinstance(d, int) else None for d in a.shape]) for a in args]
        assert [(i["name"], i["shape"]) for i in infos] == wanted
        assert {i["dtype"] for i in infos} == {"float32"}
    assert (found.half, found.quantized) == (False, False)


def test_what_an_onnx_file_computes_in(tmp_path, onnx_model):
    half = onnx_model(
        [("Add", ["x", "w"], ["y"], {})],
        {"x": ("FLOAT16", ["n", 4])}, {"y": ("FLOAT16", ["n", 4])}, {"w": np.ones((1, 4), np.float16)},
    )  # fmt: skip
    quantized = onnx_model(
        [("QuantizeLinear", ["x", "s", "z"], ["q"], {}), ("DequantizeLinear", ["q", "s", "z"], ["y"], {})],
        {"x": ("FLOAT", [1, 4])}, {"y": ("FLOAT", [1, 4])}, {"s": np.float32(0.5), "z": np.int8(0)},
    )  # fmt: skip
    path, found = tmp_path / "model", []
    for model in (half, quantized):
        path.write_bytes(model)
        found.append(onnx_file.read(str(path)))
    assert [(f.half, f.quantized) for f in found] == [(True, False), (False, True)]
    assert [(i["name"], i["shape"], i["dtype"]) for i in found[0].inputs] == [("x", [None, 4], "float16")]


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"not a model", b"\x3a\xff\xff\xff\x0f", bytes(64), b"\x3a\x02\x5a\x00"]
)
def test_what_is_no_onnx_file_is_refused(tmp_path, data):
    path = tmp_path / "model"
    path.write_bytes(data)
    with pytest.raises(AgentError, match="no ONNX model"):
        onnx_file.read(str(path))


def test_a_gpus_memory_by_process():
    text = (
        "CLIENT                        PROCESS      PID        SIZE\n"
        "user                          python3    12345     123456K\n"
        "user                         gnome-sh     2211       4096K\n"
        "user                          python3    12345         64K\n"
        "total                                              127616K\n"
    )
    assert cuda.nvmap(text, 12345) == 123520 * 1024
    assert cuda.nvmap(text, 1) == 0


def test_the_folder_says_what_its_engines_are_for(tmp_path):
    own = Path(engines.folder(str(tmp_path), "tensorrt", {"tensorrt": "8.5"}, GPU, "m", {}))
    about = json.loads((own.parent / "about.json").read_text())
    assert about == {"runtime": "tensorrt", "versions": {"tensorrt": "8.5"}, "gpu": GPU}


def test_a_provider_that_does_not_start_is_told_with_the_reason():
    words = (
        "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void "
        "onnxruntime::python::RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, "
        "const onnxruntime::ProviderOptions&) "
        "Please install TensorRT libraries as mentioned in the GPU requirements page.\n"
    )  # as ONNX Runtime 1.31 says it
    assert providers.reason(words) == "Please install TensorRT libraries as mentioned in the GPU requirements page."
    assert len(providers.reason("x" * 9999)) == 240
    words = (
        "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:146 std::conditional_t<THRW, void, "
        "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, int) [with ERRTYPE = cudaError; bool THRW = true] "
        "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; hostname=vm"
    )
    assert providers.reason(words) == ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version")
    words = (
        "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static "
        "onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const "
        "onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:182 Parse Unknown "
        'provider option: "nonsense".\n'
    )
    made = providers.plan("CUDAExecutionProvider", 1, {"nonsense": "1"}, "/x", "/x", "1.31")
    assert made.refused(words)
    assert providers.reason(words) == 'Unknown provider option: "nonsense"'


def test_the_library_that_a_provider_lacks_is_named(tmp_path):
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("no C compiler")
    folder = tmp_path / "capi"
    folder.mkdir()
    (tmp_path / "empty.c").write_text("int nothing;\n")
    subprocess.run([cc, "-shared", "-o", str(tmp_path / "libwanted.so.9"), str(tmp_path / "empty.c")], check=True)
    provider = str(folder / "libonnxruntime_providers_cuda.so")
    command = [cc, "-shared", "-Wl,--no-as-needed", "-o", provider, str(tmp_path / "empty.c"), "-L", str(tmp_path)]
    subprocess.run([*command, "-l:libwanted.so.9"], check=True)
    said = providers.missing_library("CUDAExecutionProvider", str(tmp_path / "__init__.py"))
    assert "libwanted.so.9" in said
    assert providers.missing_library("TensorrtExecutionProvider", str(tmp_path / "__init__.py")) == ""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

RNG = np.random.default_rng(1)


def ort_session(model: bytes):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = 1, 1, 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def interpreter(runtime: str, model: bytes):
    module = pytest.importorskip(runtime.replace("-", "_") + ".interpreter")
    it = module.Interpreter(model_content=model, num_threads=1)
    it.allocate_tensors()
    return it


def plain_tflite(runtime: str, model: bytes, samples: np.ndarray) -> np.ndarray:
    it, out = interpreter(runtime, model), []
    for i in range(len(samples)):
        it.set_tensor(it.get_input_details()[0]["index"], samples[i : i + 1])
        it.invoke()
        out.append(it.get_tensor(it.get_output_details()[0]["index"]))
    return np.concatenate(out)


def images(data_dir: Path, n: int) -> np.ndarray:
    with np.load(data_dir / "cifar10_resnet8" / "eval.npz") as z:
        return z["x"][:n]


def test_onnx_outputs_are_those_of_the_plain_runtime_bit_for_bit(agent, data_dir):
    model = (data_dir / "cifar10_resnet8" / "model.onnx").read_bytes()
    x = images(data_dir, 40).astype(np.float32)
    opened = agent.open(model)
    assert (opened["provider"], opened["warnings"]) == ("CPUExecutionProvider", [])
    assert opened["load_ms"] > 0
    assert [(i["name"], i["shape"], i["dtype"]) for i in opened["inputs"]] == [("input", [None, 32, 32, 3], "float32")]
    assert agent.feed(1, input=x) == 40
    plain = ort_session(model)
    wanted = np.concatenate([plain.run(None, {"input": x[i : i + 1]})[0] for i in range(40)])
    (got,) = agent.infer(1, 40)
    assert got.dtype == wanted.dtype
    assert (got == wanted).all()
    (part,) = agent.infer(1, 7, first=11)
    assert (part == wanted[11:18]).all()


@pytest.mark.parametrize("runtime", ["ai-edge-litert", "tflite-runtime"])
@pytest.mark.parametrize("name", ["model.tflite", "model_int8_reference.tflite"])
def test_tflite_outputs_are_those_of_the_plain_runtime_bit_for_bit(agent, data_dir, runtime, name):
    model = (data_dir / "cifar10_resnet8" / name).read_bytes()
    x = images(data_dir, 20)
    samples = (x.astype(np.int16) - 128).astype(np.int8) if "int8" in name else x.astype(np.float32)
    wanted = plain_tflite(runtime, model, samples)
    opened = agent.open(model, runtime)
    assert opened["version"]
    assert opened["provider"] == "CPU"
    if "int8" in name:
        assert (opened["inputs"][0]["dtype"], opened["inputs"][0]["zero_point"]) == ("int8", -128)
    agent.feed(1, **{opened["inputs"][0]["name"]: samples})
    (got,) = agent.infer(1, 20)
    assert got.dtype == wanted.dtype
    assert (got == wanted).all()


@pytest.mark.parametrize("runtime", ["onnxruntime", "ai-edge-litert"])
def test_time_answers_nanoseconds_of_each_call(agent, data_dir, runtime):
    folder = data_dir / "cifar10_resnet8"
    opened = agent.open((folder / ("model.onnx" if runtime == "onnxruntime" else "model.tflite")).read_bytes(), runtime)
    agent.feed(1, **{opened["inputs"][0]["name"]: images(data_dir, 3).astype(np.float32)})
    frame = agent.ask("time", session=1, first=2, calls=5, min_ms=0)
    ns = np.frombuffer(frame.body, "<i8")
    assert len(ns) == frame.head["calls"] == 5
    assert (ns > 10_000).all()
    conditions = frame.head["conditions"]
    assert set(conditions) == {"before", "after", "throttled"}
    assert conditions["before"]["load1"] >= 0
    longer = agent.ask("time", session=1, first=0, calls=1, min_ms=60)
    ns = np.frombuffer(longer.body, "<i8")
    assert ns.sum() < 60e6 + ns.max() + 30e6
    assert longer.head["calls"] > 5


def test_several_inputs_and_outputs_of_several_types(agent, onnx_model):
    model = onnx_model(
        [
            ("Add", ["a", "b"], ["s"], {}),
            ("Cast", ["a"], ["c"], {"to": 7}),
            ("Greater", ["a", "b"], ["g"], {}),
            ("Cast", ["a"], ["f"], {"to": 10}),
        ],
        {"a": ("FLOAT", ["n", 3]), "b": ("FLOAT", ["n", 1])},
        {"s": ("FLOAT", ["n", 3]), "c": ("INT64", ["n", 3]), "g": ("BOOL", ["n", 3]), "f": ("FLOAT16", ["n", 3])},
    )
    a, b = RNG.normal(size=(5, 3)).astype(np.float32) * 9, RNG.normal(size=(5, 1)).astype(np.float32)
    agent.open(model)
    assert agent.feed(1, b=b, a=a) == 5
    s, c, g, f = agent.infer(1, 5)
    assert (s == a + b).all()
    assert (c == a.astype(np.int64)).all()
    assert (g == (a > b)).all()
    assert (f == a.astype(np.float16)).all()


def test_a_fixed_batch_takes_samples_in_a_row_and_fills_up_the_last(agent, onnx_model):
    model = onnx_model([("Mul", ["x", "x"], ["y"], {})], {"x": ("INT32", [4, 2])}, {"y": ("INT32", [4, 2])})
    x = np.arange(20, dtype=np.int32).reshape(10, 2)
    agent.open(model)
    assert agent.feed(1, x=x) == 10
    assert (agent.infer(1, 10)[0] == x * x).all()
    assert (agent.infer(1, 1, first=9)[0] == x[9:] ** 2).all()
    assert agent.ask("time", session=1, first=8, calls=3, min_ms=0).head["calls"] == 3


def test_an_input_without_a_batch_axis_takes_each_sample_whole(agent, onnx_model):
    model = onnx_model([("Neg", ["x"], ["y"], {})], {"x": ("FLOAT", [6])}, {"y": ("FLOAT", [6])})
    x = RNG.normal(size=(3, 6)).astype(np.float32)
    agent.open(model)
    assert agent.feed(1, x=x) == 3
    assert (agent.infer(1, 3)[0] == -x).all()


def test_open_axes_take_the_size_of_what_is_fed_and_another_after_that(agent, onnx_model):
    model = onnx_model([("Abs", ["x"], ["y"], {})], {"x": ("FLOAT", ["n", "k"])}, {"y": ("FLOAT", ["n", "k"])})
    agent.open(model)
    for width in (3, 5):
        x = RNG.normal(size=(2, width)).astype(np.float32)
        agent.feed(1, x=x)
        assert (agent.infer(1, 2)[0] == abs(x)).all()


def test_outputs_that_no_frame_can_hold_are_refused_with_the_mend(agent, onnx_model):
    shape = np.array([1, 20_000_000], np.int64)
    nodes = [("Expand", ["x", "shape"], ["y"], {}), ("Identity", ["x"], ["z"], {})]
    outputs = {"z": ("FLOAT", [1, 1]), "y": ("FLOAT", [1, 20_000_000])}
    agent.open(onnx_model(nodes, {"x": ("FLOAT", [1, 1])}, outputs, {"shape": shape}))
    agent.feed(1, x=np.ones((4, 1), np.float32))
    assert "fewer" in agent.refused("infer", session=1, first=0, count=4)["mend"]
    assert agent.infer(1, 1)[1].shape == (1, 20_000_000)


def test_outputs_whose_shape_depends_on_the_sample_are_refused_by_name(agent, onnx_model):
    model = onnx_model([("NonZero", ["x"], ["where"], {})], {"x": ("FLOAT", [1, 4])}, {"where": ("INT64", [2, "k"])})
    agent.open(model)
    agent.feed(1, x=np.array([[0, 1, 0, 0], [1, 1, 0, 0]], np.float32))
    error = agent.refused("infer", session=1, first=0, count=2)
    assert (error["kind"], "where" in error["what"]) == ("model", True)


def test_bad_feeds_name_the_input_and_what_it_takes(agent, linear):
    agent.open(linear)
    x = np.zeros((2, 4), np.float32)
    name = agent.put(x.tobytes())
    good = {"sha256": name, "dtype": "float32", "shape": [2, 4]}
    for inputs, kind, word in [
        ({}, "model", "['x']"),
        ({"z": good}, "model", "['z']"),
        ({"x": {**good, "dtype": "float64"}}, "model", "float32"),
        ({"x": {**good, "shape": [4, 2]}}, "model", "[4]"),
        ({"x": {**good, "shape": [3, 4]}}, "request", "48 bytes"),
        ({"x": {**good, "shape": [-2, 4]}}, "request", "shape"),
        ({"x": {**good, "shape": 8}}, "request", "shape"),
        ({"x": {**good, "sha256": "0" * 64}}, "missing", "0" * 64),
    ]:
        error = agent.refused("feed", session=1, inputs=inputs)
        assert (error["kind"], word in error["what"]) == (kind, True), error
    assert agent.refused("infer", session=1, first=0, count=1)["kind"] == "request"
    agent.ask("feed", session=1, inputs={"x": good})
    for first, count in ((0, 3), (-1, 1), (0, 0)):
        assert agent.refused("infer", session=1, first=first, count=count)["kind"] == "request"


@pytest.mark.parametrize("runtime", ["onnxruntime", "ai-edge-litert", "tflite-runtime"])
def test_a_file_that_is_no_model_is_an_answer(agent, runtime):
    onnx = {"format": "onnx", "provider": "CPUExecutionProvider"}
    how = onnx if runtime == "onnxruntime" else {"format": "tflite", "provider": "CPU"}
    assert agent.refused("open", runtime=runtime, model=agent.put(b"not a model"), **how)["kind"] == "model"
    assert agent.children() == []


def test_a_session_entry_reaches_the_runtime_and_an_unknown_tflite_one_is_refused(agent, linear, data_dir):
    agent.open(linear, config={"session.intra_op.allow_spinning": "0"}, threads=2)
    model = agent.put((data_dir / "cifar10_resnet8" / "model.tflite").read_bytes())
    error = agent.refused(
        "open", model=model, format="tflite", runtime="ai-edge-litert", provider="CPU",
        config={"session.disable_prepacking": "1"},
    )  # fmt: skip
    assert "session.disable_prepacking" in error["what"]


@pytest.mark.parametrize(
    ("provider", "words"),
    [("AzureExecutionProvider", "runs 0 of 1 nodes"), ("TensorrtExecutionProvider", "is not in this onnxruntime")],
)
def test_a_fall_back_to_the_cpu_is_found_out_and_said(agent, linear, provider, words):
    import onnxruntime

    if "not in" not in words and provider not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {provider}")
    opened = agent.open(linear, provider=provider)
    assert opened["provider"] == "CPUExecutionProvider"
    assert len(opened["warnings"]) == 1
    assert provider in opened["warnings"][0]
    assert words in opened["warnings"][0]


def test_placement_by_profile_where_the_session_cannot_be_asked(tmp_path, linear):
    from edgelathe_agent.runtimes.placement import placement

    path = tmp_path / "cas" / "aa" / "model"
    path.parent.mkdir(parents=True)
    path.write_bytes(linear)
    assert placement(object(), str(path), ["CPUExecutionProvider"]) == {"CPUExecutionProvider": 1}
    assert not any((tmp_path / "tmp").iterdir())


def test_an_engine_that_runs_elsewhere_tells_its_own_times_and_knows_no_load(tmp_path):
    from edgelathe_agent.protocol import AgentError
    from edgelathe_agent.queries import Stream
    from edgelathe_agent.runtimes import Engine
    from edgelathe_agent.session import Session

    class Elsewhere(Engine):
        run = fork = bind = fetch = lambda *_: None
        staged = 0

        def stage(self):
            self.staged += 1

        def series(self, calls, min_ms):
            return [5] * calls

    session, engine = Session(str(tmp_path)), Elsewhere()
    session._engine, session._streams = engine, [Stream(engine, [], 1, 3)]
    one = {"first": 2, "calls": 4, "min_ms": 0.0, "samples": 0, "period_ms": 0}
    assert list(session._block(one).times) == [5] * 4
    assert engine.staged == 1
    for load in ({"samples": 9}, {"period_ms": 30}):
        with pytest.raises(AgentError, match="no pauses and no queries") as caught:
            session._block({**one, **load})
        assert caught.value.kind == "missing"


def test_sessions_side_by_side_have_children_of_their_own(agent, linear):
    x = np.ones((1, 4), np.float32)
    for number in (1, 2):
        assert agent.open(linear)["session"] == number
        agent.feed(number, x=x * number)
    assert len(agent.children()) == 2
    assert (agent.infer(2, 1)[0] == 2 * agent.infer(1, 1)[0]).all()
    agent.ask("close", session=1)
    assert len(agent.children()) == 1
    assert agent.refused("infer", session=1, first=0, count=1)["kind"] == "missing"
    assert agent.infer(2, 1)[0].shape == (1, 3)


def test_an_idle_session_burns_no_processor_time(agent, data_dir):
    opened = agent.open((data_dir / "cifar10_resnet8" / "model.onnx").read_bytes(), threads=2)
    agent.feed(opened["session"], input=images(data_dir, 1).astype(np.float32))
    agent.infer(1, 1)
    (child,) = agent.children()

    def ticks() -> int:
        return sum(map(int, Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]))

    def idle() -> bool:
        before = ticks()
        time.sleep(0.5)
        return ticks() - before <= 2

    assert any(idle() for _ in range(20))  # its threads may look for work for a moment, where the machine is slow


def test_peak_memory_is_that_of_the_model_and_not_of_the_samples(agent, onnx_model):
    big = onnx_model(
        [("MatMul", ["x", "w"], ["y"], {})], {"x": ("FLOAT", ["n", 500])}, {"y": ("FLOAT", ["n", 4000])},
        {"w": np.zeros((500, 4000), np.float32)},
    )  # fmt: skip
    agent.open(big)
    agent.feed(1, x=np.zeros((4000, 500), np.float32))  # 8 MB like the model, and outputs of 64 MB
    agent.ask("time", session=1, first=0, calls=5, min_ms=0)
    agent.infer(1, 4000)
    agent.ask("time", session=1, first=0, calls=5, min_ms=0)
    peak = agent.ask("close", session=1).head["peak_bytes"]
    assert 8e6 < peak < 48e6


def test_a_child_that_dies_is_an_answer_with_its_signal_and_the_agent_lives_on(agent, linear):
    agent.open(linear)
    agent.feed(1, x=np.zeros((1, 4), np.float32))
    (child,) = agent.children()
    agent.send("time", session=1, first=0, calls=1, min_ms=60_000)
    time.sleep(0.2)
    os.kill(child, signal.SIGSEGV)
    head = agent.answer().head
    assert head["error"]["kind"] == "crash"
    assert "SIGSEGV" in head["error"]["what"]
    assert agent.refused("infer", session=1, first=0, count=1)["kind"] == "missing"
    agent.open(linear)
    (child,) = agent.children()
    os.kill(child, signal.SIGABRT)
    assert "SIGABRT" in agent.refused("feed", session=2, inputs={})["what"]
    assert agent.ask("have", sha256=[]).head["ok"]


def test_a_child_over_its_time_limit_is_ended(agent, linear):
    agent.open(linear, limits={"call_seconds": 3})
    agent.feed(1, x=np.ones((1, 4), np.float32))
    (child,) = agent.children()
    os.kill(child, signal.SIGSTOP)  # as a call that never returns
    error = agent.refused("infer", session=1, first=0, count=1)
    assert error["kind"] == "time"
    assert "3 s" in error["what"]
    assert agent.children() == []
    assert agent.refused("infer", session=1, first=0, count=1)["kind"] == "missing"


def test_a_child_over_its_memory_limit_is_ended(agent, onnx_model):
    model = onnx_model(
        [("Expand", ["x", "shape"], ["big"], {}), ("ReduceSum", ["big"], ["y"], {"keepdims": 0})],
        {"x": ("FLOAT", [1])}, {"y": ("FLOAT", [])}, {"shape": np.array([400_000_000], np.int64)},
    )  # fmt: skip
    agent.open(model, limits={"memory_bytes": 300 << 20, "seconds": 60})
    agent.feed(1, x=np.ones((1, 1), np.float32))
    error = agent.refused("infer", session=1, first=0, count=1)
    assert error["kind"] == "memory"
    assert f"{300 << 20} allowed" in error["what"]
    assert agent.children() == []


def test_children_go_first_when_memory_runs_out(agent, linear):
    agent.open(linear)
    (child,) = agent.children()
    assert int(Path(f"/proc/{child}/oom_score_adj").read_text()) >= 800
    assert os.getsid(child) == child


def test_no_telemetry_of_the_runtime(start, tmp_path, linear):
    home = tmp_path / "home"
    home.mkdir()
    agent = start(env={"HOME": str(home), "TMPDIR": str(home), "ORT_DISABLE_TELEMETRY": "0"})
    agent.open(linear)
    (child,) = agent.children()
    assert len(list(Path(f"/proc/{child}/task").iterdir())) <= 3  # the child's own thread, and no uploader's pool
    assert list(home.rglob("*")) == []

"""`eval` as users run it."""

import json
import signal
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from support import cli, schemas


@pytest.fixture
def resnet(data_dir, tmp_path):
    """The model, and 10,000 samples that take seconds."""
    with np.load(data_dir / "cifar10_resnet8" / "eval.npz") as f:
        x, y = f["x"], f["y"]
    many = 10_000 // len(x) + 1
    np.savez(tmp_path / "many.npz", x=np.tile(x, (many, 1, 1, 1))[:10_000], y=np.tile(y, many)[:10_000])
    np.savez(tmp_path / "few.npz", x=x[:300], y=y[:300])
    return data_dir / "cifar10_resnet8" / "model.onnx"


def test_what_was_cut_off_goes_on_from_where_it_was(resnet, tmp_path, own_home):
    data = tmp_path / "many.npz"
    process = cli.start("eval", resnet, "--data", data, "--json")
    while not any(p.stat().st_size > 10_000 for p in (own_home / "cache").glob("edgelathe/eval/*.npys")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=cli.HANGS)
    assert process.returncode == 130, err
    cut = json.loads(out)
    schemas.validate(cut)
    assert cut["interrupted"]
    assert 0 < cut["results"][0]["accuracy"]["n"] < 10_000
    whole = cli.answer("eval", resnet, "--data", data)
    assert any("of 10,000 samples were measured before it was cut off" in w for w in whole["results"][0]["warnings"])
    fresh = cli.answer("eval", resnet, "--data", data)
    assert fresh["results"][0]["accuracy"] == whole["results"][0]["accuracy"]
    assert not any("cut off" in w for w in fresh["results"][0]["warnings"])
    assert list((own_home / "cache").glob("edgelathe/eval/*")) == []


def test_a_model_that_was_done_is_not_run_again_when_the_next_one_was_cut_off(resnet, tmp_path, own_home):
    other = tmp_path / "other.onnx"
    cli.run("compress", resnet, "--recipe", "fp16", "-o", other)
    process = cli.start("eval", resnet, other, "--data", tmp_path / "many.npz", "--json", "--parity", 0)
    while not {".done", ".npys"} <= {p.suffix for p in (own_home / "cache").glob("edgelathe/eval/*")}:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=cli.HANGS)
    assert process.returncode == 130, err
    first, second = json.loads(out)["results"]
    assert first["accuracy"]["n"] == 10_000
    assert second["accuracy"] is None or second["accuracy"]["n"] < 10_000
    whole = cli.answer("eval", resnet, other, "--data", tmp_path / "many.npz", "--parity", 0)
    assert whole["results"][0]["accuracy"] == first["accuracy"]
    assert any("10,000 of 10,000 samples" in w for w in whole["results"][0]["warnings"])
    assert list((own_home / "cache").glob("edgelathe/eval/*")) == []


def test_a_second_model_is_compared_in_pairs_and_judged(resnet, tmp_path):
    quantized, data = tmp_path / "q.onnx", tmp_path / "few.npz"
    cli.run("compress", resnet, "--recipe", "int8", "--data", data, "-o", quantized)
    document = cli.answer("eval", resnet, quantized, "--data", data, "--budget", "accuracy.drop<=5%")
    schemas.validate(document)
    (row,) = document["comparisons"]
    assert row["low"] <= row["drop"] <= row["high"]
    assert row["drop"] == pytest.approx((row["lost"] - row["won"]) / row["n"])
    assert [line["verdict"] for line in document["budget"]] == ["met"]
    missed = cli.answer("eval", resnet, "--data", data, "--budget", "accuracy>=99.9%", code=1)
    assert missed["budget"][0]["verdict"] == "missed"
    assert missed["results"][0]["accuracy"]["n"] <= 300


def test_parity_can_be_widened_and_left_out(resnet, tmp_path):
    data = tmp_path / "few.npz"
    assert cli.answer("eval", resnet, "--data", data, "--parity", "300")["results"][0]["parity"]["n"] == 300
    assert cli.answer("eval", resnet, "--data", data, "--parity", "0")["results"][0]["parity"] is None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--budget", "size<=1MB"], "accuracy"),
        (["--budget", "accuracy.drop<=1%"], "name the uncompressed model first"),
        (["--budget", "accuracy>=90"], "90"),
    ],
)
def test_budgets_that_eval_cannot_judge_are_refused(resnet, tmp_path, more, words):
    assert words in cli.error("eval", resnet, "--data", tmp_path / "few.npz", *more)


@pytest.fixture
def log(tmp_path):
    """A model y = log(x), and negative samples."""
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Log", ["x"], ["y"])], "g",
        [tensor("x", TensorProto.FLOAT, [1, 4])], [tensor("y", TensorProto.FLOAT, [1, 4])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "log.onnx").write_bytes(model.SerializeToString())
    np.savez(tmp_path / "d.npz", x=-np.ones((10, 4), np.float32), y=np.zeros(10, np.int64))
    return tmp_path / "log.onnx", tmp_path / "d.npz"


def test_outputs_that_are_no_numbers_are_an_answer(log):
    model, data = log
    assert "NaN in the outputs of 10 of 10 samples" in cli.error("eval", model, "--data", data)


def test_a_model_that_fails_leaves_the_others_their_results(log, tmp_path):
    model, data = log
    proto = onnx.load(model)
    proto.graph.node[0].op_type = "Exp"
    onnx.save(proto, tmp_path / "exp.onnx")
    document = cli.answer("eval", tmp_path / "exp.onnx", model, "--data", data, code=1)
    schemas.validate(document)
    good, bad = document["results"]
    assert good["accuracy"]["n"] == 10
    assert (bad["accuracy"], bad["error"]["kind"]) == (None, "outputs")
    assert document["comparisons"] == []
    shown = cli.run("eval", model, tmp_path / "exp.onnx", "--data", data, code=1).stdout
    assert "✗ log.onnx: NaN in the outputs" in shown
    assert "exp.onnx   top-1" in shown
    drop = ("--data", data, "--budget", "accuracy.drop<=1%")
    assert "NaN in the outputs" in cli.error("eval", model, tmp_path / "exp.onnx", *drop)  # nothing to be worse than

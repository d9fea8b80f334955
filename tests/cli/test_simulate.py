"""`edgelathe simulate`, as users run it."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from edgelathe.model import io
from support import schemas
from support.cli import answer, error, run, watch
from support.tiny_tflite import answers

R8 = "cifar10_resnet8"


@pytest.fixture(scope="module")
def folder(data_dir):
    return data_dir / R8


def test_an_integer_model_answers_as_tflite_does(folder, tmp_path):
    model, arrays = folder / "model_int8_reference.tflite", tmp_path / "outputs.npz"
    document = answer("simulate", model, "--data", folder / "eval.npz", "--limit", 40, "--outputs", arrays, fresh=True)
    schemas.validate(document)
    data, written = np.load(folder / "eval.npz"), np.load(arrays)
    inputs = {io.load(model).signature.inputs[0].name: (data["x"][:40].astype(np.int16) - 128).astype(np.int8)}
    np.testing.assert_array_equal(written["simulated"], answers(io.load(model), inputs)[0])
    right = int((written["simulated"].argmax(1) == data["y"][:40]).sum())
    assert document["simulated"] == right / 40
    assert document["float"] == (written["float"].argmax(1) == data["y"][:40]).mean()
    assert (
        document["error"]["classification"]["changed"]
        == (written["float"].argmax(1) != written["simulated"].argmax(1)).sum()
    )
    assert [layer["op"] for layer in document["layers"]].count("CONV_2D") == 9
    assert document["against"] == "the same model without rounding"


def test_a_recipe_is_applied_first_and_judged_against_the_float_model(folder):
    document = answer(
        "simulate", folder / "model.tflite", "--data", folder / "eval.npz", "--calib", folder / "calib.npz",
        "--recipe", "int8(activations=16)", "--limit", 20, "--function", "square",
    )  # fmt: skip
    schemas.validate(document)
    assert document["against"] == "float model"
    assert {layer["bits"] for layer in document["layers"]} == {16, None}
    assert document["error"]["sqnr_db"] > 20
    assert document["error"]["regression"]["function"] == "square"


def test_an_onnx_model_at_few_bits(folder):
    document = answer(
        "simulate", folder / "model.onnx", "--data", folder / "eval.npz", "--weights", 3, "--activations", 8,
        "--limit", 16,
    )  # fmt: skip
    schemas.validate(document)
    assert document["format"] == "onnx"
    assert document["error"]["sqnr_db"] < 25
    assert document["arithmetic"]["weights"] == 3


def test_data_are_set_aside_only_where_ranges_are_wanted(folder):
    shown = run("simulate", folder / "model.tflite", "--data", folder / "eval.npz", "--limit", 3)
    assert "no --calib: 150 of the 600 samples are for calibration" in shown.stderr
    assert "furthest from float:" in shown.stdout
    shown = run("simulate", folder / "model.tflite", "--data", folder / "eval.npz", "--limit", 3, "--weights", 4)
    assert "no --calib" not in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--weights", "1"], "--weights: 1 bits cannot be simulated; give 2 to 16"),
        (["--activations", "17"], "--activations: 17 bits cannot be simulated"),
        (["--function", "cube"], "function 'cube': no such function"),
        (["--kernels", "saturating"], "--kernels saturating: TFLite has no such kernels"),
        (["--outputs", "/nowhere/x.npz"], "/nowhere/x.npz: cannot be written"),
        (["--recipe", "int9"], "no step 'int9'; did you mean 'int8'?"),
        (["--accumulator", "16"], "--accumulator"),
    ],
)
def test_bad_input_is_one_line(folder, arguments, said):
    line = error("simulate", folder / "model.tflite", "--data", folder / "eval.npz", "--limit", 2, *arguments)
    assert said in line


def test_it_can_be_interrupted_and_leaves_no_file(folder, tmp_path):
    watched = watch("simulate", folder / "model.tflite", "--data", folder / "eval_jpeg.npz", "--json", "--outputs",
                    tmp_path / "outputs.npz")  # fmt: skip
    watched.wait_for("simulate · ")  # the first samples are through
    code, out, shown = watched.end(signal.SIGINT)
    assert code == 130, shown
    assert out == ""
    assert shown.strip().splitlines()[-1].endswith("error: edgelathe: interrupted; run it again")
    assert list(tmp_path.iterdir()) == []

"""The model and data that come with the package: what `demo` shows rests on them."""

from importlib.resources import files

import numpy as np
import onnxruntime as ort
import pytest
from ai_edge_litert.interpreter import Interpreter

FOLDER = files("edgelathe") / "bundled"


@pytest.fixture(scope="module")
def arrays():
    with (FOLDER / "calib.npz").open("rb") as calib, (FOLDER / "eval.npz").open("rb") as evaluation:
        return dict(np.load(calib)), dict(np.load(evaluation))


@pytest.fixture(scope="module")
def outputs(arrays):
    x = arrays[1]["x"].astype(np.float32)
    session = ort.InferenceSession((FOLDER / "digits.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    by_onnx = np.concatenate([session.run(None, {"input": row[None]})[0] for row in x])
    run = Interpreter(model_content=(FOLDER / "digits.tflite").read_bytes(), num_threads=1).get_signature_runner()
    by_tflite = np.concatenate([run(input=row[None])["output"] for row in x])
    return {"onnx": by_onnx, "tflite": by_tflite}


def test_both_forms_are_one_function(outputs):
    assert np.abs(outputs["onnx"] - outputs["tflite"]).max() < 1e-5


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_the_documented_accuracy_holds(form, outputs, arrays):
    right = int((outputs[form].argmax(1) == arrays[1]["y"]).sum())
    assert f"{right} of {len(arrays[1]['y'])} right" in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert right >= 0.98 * len(arrays[1]["y"])


def test_the_folder_stays_small():
    assert sum(len(f.read_bytes()) for f in FOLDER.iterdir() if f.is_file()) < 1_000_000


def test_the_data_suffices_for_the_demos_claims(arrays):
    calib, evaluation = arrays
    assert len(evaluation["y"]) >= 540
    assert len(calib["y"]) == 256
    for part in arrays:
        assert part["x"].dtype == np.uint8
        assert part["y"].dtype == np.int64
        assert part["x"].shape == (len(part["y"]), 8, 8, 1)
        assert part["x"].max() == 16
        assert set(part["y"]) == set(range(10))


def test_nothing_is_calibrated_on_what_it_is_judged_by(arrays):
    calibrated = {row.tobytes() for row in arrays[0]["x"]}
    assert not [i for i, row in enumerate(arrays[1]["x"]) if row.tobytes() in calibrated]


def test_the_batch_is_open_and_does_not_change_answers(arrays, outputs):
    session = ort.InferenceSession((FOLDER / "digits.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    together = session.run(None, {"input": arrays[1]["x"].astype(np.float32)})[0]
    assert np.abs(together - outputs["onnx"]).max() < 1e-5

"""`edgelathe sensitivity` from the command line."""

import numpy as np
import pytest

from support import schemas
from support.cli import answer, error, run
from support.float_tflite import from_onnx
from support.tiny_onnx import Graph, samples


@pytest.fixture
def files(tmp_path):
    g = Graph()
    y = g.op("Relu", g.conv("x", 3, 4))
    model = g.build(g.op("Flatten", g.op("GlobalAveragePool", g.conv(y, 4, 3))))
    (tmp_path / "m.onnx").write_bytes(model.data)
    np.savez(tmp_path / "d.npz", x=samples(model, 12).inputs["x"], y=np.arange(12) % 3)
    return tmp_path / "m.onnx", "--data", tmp_path / "d.npz", "--keep", 1


def test_a_table_and_a_plot_that_loads_nothing(files):
    page = files[0].with_suffix(".html")
    out = run("sensitivity", *files, "--widths", "4,2", "-o", page).stdout
    assert "Conv_0" in out
    assert "2 bits, dB" in out
    assert "4 bits: all layers lose" in out
    text = page.read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text
    assert text.count("<title>Conv_") == 4  # two layers at two widths


def test_a_document(files):
    found = answer("sensitivity", *files, "--widths", "4", "--early", fresh=True)
    schemas.validate(found)
    assert found["options"]["early"] is True
    assert len(found["layers"]) == 2


def test_the_widths_are_those_that_one_chooses_among(files):
    found = answer("sensitivity", *files)
    schemas.validate(found)
    assert found["options"]["widths"] == [16, 8, 4]
    assert [k["bits"] for k in found["keep"]] == [16, 8, 4]


def test_what_cannot_be_asked_is_refused(files, tmp_path):
    assert "--widths" in error("sensitivity", *files, "--widths", "17")
    assert "HTML" in error("sensitivity", *files, "-o", tmp_path / "plot.png")


def test_a_tflite_model_has_the_same_table(tmp_path):
    g = Graph()
    model = from_onnx(g.build(g.op("Flatten", g.op("GlobalAveragePool", g.conv("x", 3, 4))), shape=(1, 3, 8, 8)))
    (tmp_path / "m.tflite").write_bytes(model.data)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32))
    page = tmp_path / "m.html"
    out = run("sensitivity", tmp_path / "m.tflite", "--data", tmp_path / "d.npz", "--widths", "4,2", "-o", page).stdout
    assert "CONV_2D" in out
    assert page.read_text().count("<title>") >= 2

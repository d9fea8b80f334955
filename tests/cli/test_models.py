"""`edgelathe compress`, as users run it: what a search chose is kept for a replay."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.core import recipe
from edgelathe.model import io
from support import schemas
from support.cli import answer, error
from support.tiny_onnx import Graph, samples


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A model file and calibration data without labels."""
    folder = tmp_path_factory.mktemp("compress")
    g = Graph()
    y = g.op("Relu", g.op("Conv", "x", g.weights(16, 3, 3, 3), g.weights(16), pads=[1] * 4, name="first"))
    y = g.op("Relu", g.op("Conv", y, g.weights(32, 16, 3, 3, scale=0.05), g.weights(32), name="second"))
    y = g.op("Flatten", g.op("GlobalAveragePool", y))
    model = g.build(g.op("Gemm", y, g.weights(32, 4), g.weights(4), name="head"))
    io.save(model, folder / "m.onnx")
    np.savez(folder / "calib.npz", x=samples(model, 16).inputs["x"])
    return folder / "m.onnx", folder / "calib.npz"


def test_a_saved_recipe_holds_the_bits_that_were_chosen_and_gives_the_same_bytes(case, tmp_path):
    model, calib = case
    kept, first, again = tmp_path / "kept.toml", tmp_path / "first.onnx", tmp_path / "again.onnx"
    document = answer(
        "compress", model, "--recipe", "mixed(size=5bits,widths=2/4/8)", "--data", calib, "--profile", "x86-cpu",
        "-o", first, "--save-recipe", kept,
    )  # fmt: skip
    schemas.validate(document)
    assert kept.read_text() == document["recipe_toml"]
    step = recipe.from_toml(kept.read_text(), "kept").steps[-1]
    assert step.layers.keys() == {"first", "second", "head"}
    assert all(own.keys() == {"weights"} for own in step.layers.values())
    replayed = answer("compress", model, "--recipe", kept, "--data", calib, "-o", again)
    assert replayed["sha256"] == document["sha256"]
    assert again.read_bytes() == first.read_bytes()
    assert not any("bytes allowed" in n["what"] for n in replayed["steps"][-1]["layers"])  # nothing was looked for


def test_a_recipe_is_saved_for_other_steps_too_and_only_where_it_can_be_read_again(case, tmp_path):
    model, calib = case
    said = error(
        "compress", model, "--recipe", "int8", "--data", calib, "-o", tmp_path / "m.onnx", "--save-recipe", "r"
    )
    assert "--save-recipe r: a recipe is read from a .toml file" in said
    assert not (tmp_path / "m.onnx").exists()
    document = answer("compress", model, "--recipe", "int8", "--data", calib, "-o", tmp_path / "m.onnx")
    assert [s.use for s in recipe.from_toml(document["recipe_toml"], "r").steps] == ["fold", "int8"]


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path):
    said = error("compress", tmp_path / "none.onnx", "--recipe", "int8", "-o", tmp_path / "no" / "m.onnx")
    assert f"{tmp_path / 'no' / 'm.onnx'}: cannot be written" in said
    assert "make the folder first" in said


def test_a_recipe_that_names_layers_of_another_export_is_refused(case, tmp_path):
    model, calib = case
    other = tmp_path / "other.toml"
    other.write_text('[[step]]\nuse = "mixed"\n[step.layers."frist"]\nweights = 4\n')
    said = error("compress", model, "--recipe", other, "--data", calib, "-o", tmp_path / "m.onnx")
    assert "no layer 'frist'" in said
    assert "first" in said

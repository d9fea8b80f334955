"""Recipes on models of 2 GB and more, with the limit lowered so that small ones count as such."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.core.dataset import Dataset
from edgelathe.core.device import SessionOptions
from edgelathe.core.errors import UserError
from edgelathe.core.profile import Hardware
from edgelathe.core.recipe import from_toml, parse
from edgelathe.model import external, io
from edgelathe.model import onnx as onnx_model
from edgelathe.model import run as runtime
from edgelathe.recipes import run, table
from edgelathe.recipes.chance import warning
from edgelathe.recipes.ready import calibration, ready
from support.large_onnx import chain, huge, load, samples, write
from support.tiny_onnx import sqnr

ABLE = [name for name, rows in table.STEPS.items() if "onnx" in rows and rows["onnx"].large]
UNABLE = [name for name, rows in table.STEPS.items() if "onnx" in rows and not rows["onnx"].large]
EXACT = SessionOptions("onnxruntime", "CPUExecutionProvider", config={"session.x64quantprecision": "1"})


def built(recipe, model, data=None):
    resolved = ready(parse(recipe), model, Hardware("x86_64", frozenset({"vnni"})), EXACT, "r")
    return run.run(resolved, model, data, "r")


def bound(n=24):
    """Samples of the chain."""
    return Dataset("samples", samples(n), None)


@pytest.fixture
def large(tmp_path, monkeypatch):
    return load(write(chain(), tmp_path / "m.onnx"), monkeypatch)


@pytest.mark.parametrize("with_data", [False, True], ids=["alone", "with data"])
@pytest.mark.parametrize("recipe", [*ABLE, "fp16(compute=half)", "int4(form=packed)"])
def test_steps_make_of_a_large_model_what_they_make_of_a_whole_one(large, monkeypatch, recipe, with_data):
    data = bound() if with_data or recipe == "int8" else None
    got = built(recipe, large, data)
    monkeypatch.setattr(external, "LARGEST", 2**31 - 1)
    whole = onnx_model.from_ir(onnx_model.to_ir(large), "m")
    assert whole.external is None
    want = built(recipe, whole, data)
    # Back in one file they are the same file.
    assert onnx_model.from_ir(onnx_model.to_ir(got.model), "m") == onnx_model.from_ir(onnx_model.to_ir(want.model), "m")
    assert [n for s in got.steps for n in s.notes] == [n for s in want.steps for n in s.notes]
    for a, b in zip(
        runtime.outputs(got.model, samples(), EXACT), runtime.outputs(want.model, samples(), EXACT), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("recipe", "files"), [("int4", ["out.onnx"]), ("fp16", ["out.onnx", "out.onnx.data"])])
def test_results_are_one_file_where_they_fit(large, tmp_path, recipe, files):
    (tmp_path / "out").mkdir()
    io.save(built(recipe, large).model, tmp_path / "out" / "out.onnx")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == files


@pytest.mark.parametrize("step", UNABLE)
def test_steps_that_cannot_say_so_and_which_can(large, step):
    with pytest.raises(UserError) as e:
        built(f"int8+{step}" if table.STEPS[step]["onnx"].corrects else step, large, bound())
    assert "does not take models of 2 GB and more, and this one has 0.0 GB; choose from fold" in str(e.value)


def test_a_model_that_a_step_let_grow_is_refused_by_the_next(monkeypatch):
    monkeypatch.setattr(external, "LARGEST", 20_000)
    model = onnx_model.from_proto(chain(), "m")
    assert model.external is None
    resolved = ready(parse("fold+prune"), model, Hardware("x86_64", frozenset()), EXACT, "r")
    monkeypatch.setattr(external, "LARGEST", 8_000)
    with pytest.raises(UserError, match="'prune' does not take models of 2 GB and more"):
        run.run(resolved, model, None, "r")


def test_samples_are_not_made_up(large):
    with pytest.raises(UserError, match="int8: needs calibration data, which are not made up for a model of 2 GB"):
        calibration(None, parse("int8"), large, "r")


def test_old_opsets_are_not_raised(tmp_path, monkeypatch):
    proto = chain()
    proto.opset_import[0].version = 12
    large = load(write(proto, tmp_path / "m.onnx"), monkeypatch)
    with pytest.raises(UserError, match=r"opset 12: too old, 13 is needed.*export it with opset 13"):
        built("fp16", large)


def test_explain_refuses_and_chance_is_told_without_layers(large):
    resolved = ready(parse("int4"), large, Hardware("x86_64", frozenset()), EXACT, "r")
    with pytest.raises(UserError, match="--explain: does not take models of 2 GB and more"):
        run.run(resolved, large, bound(), "r", explain=True)
    assert warning(large, built("int4", large), bound()) == ""


@pytest.mark.slow
def test_a_model_that_really_has_more_than_2_gb(tmp_path):
    """Folded it is two files again; with some layers as fp16 or int4 it is one, and answers alike."""
    model = io.load(huge(tmp_path / "m.onnx"), large=True)
    assert model.external is not None
    assert len(model.external) == 2**31
    x = np.random.default_rng(1).normal(size=(2, 8192)).astype(np.float32)
    want = x
    for value in onnx_model.to_ir(model).graph.initializers.values():
        want = np.maximum(want @ value.const_value.numpy(), 0)
    folded = built("fold", model).model
    io.save(folded, tmp_path / "folded.onnx")
    assert io.load(tmp_path / "folded.onnx", large=True).sha256 == folded.sha256
    for step, skipped, least in (("fp16", "fc[4-7]", 60), ("int4", "fc[2-7]", 18)):
        recipe = f'[[step]]\nuse = "{step}"\n[step.layers."{skipped}"]\nskip = true\n'
        resolved = ready(from_toml(recipe, "r"), model, Hardware("x86_64", frozenset()), EXACT, "r")
        small = run.run(resolved, model, None, "r").model
        assert small.external is None
        assert sqnr(want, runtime.outputs(small, {"x": x})[0]) > least

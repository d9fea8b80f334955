"""Samples go through together only where no operator mixes them; answers are those of one at a time either way."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.model.fixed import simulate, tflite
from edgelathe.model.fixed.types import Arithmetic
from support.tiny_tflite import Net, T, answers

GRID = ("int8", 0.1, 3)


def through(kind, shape, out, setting=None, **options):
    x, y = T("x", shape, *GRID), T("y", out, *GRID)
    net = Net()
    inputs = [x] if setting is None else [x, T("setting", (), "int32", values=setting)]
    net.op(kind, inputs, [y], **options)
    return net.build([x], [y])


CASES = {
    "reshape within a sample": (through("RESHAPE", (1, 2, 6), (1, 12), [1, 12], table="ReshapeOptions"), None),
    "reshape across samples": (through("RESHAPE", (1, 2, 6), (12, 1), [12, 1], table="ReshapeOptions"), 1),
    "transpose within": (through("TRANSPOSE", (1, 2, 6), (1, 6, 2), [0, 2, 1], table="TransposeOptions"), None),
    "transpose across": (through("TRANSPOSE", (1, 1, 6), (1, 1, 6), [1, 0, 2], table="TransposeOptions"), 1),
    "pad within": (through("PAD", (1, 2, 6), (1, 3, 6), [[0, 0], [1, 0], [0, 0]]), None),
    "pad across": (through("PAD", (1, 2, 6), (2, 2, 6), [[0, 1], [0, 0], [0, 0]]), 1),
    "mean within": (through("MEAN", (1, 4, 6), (1, 6), [1], table="ReducerOptions"), None),
    "mean across": (through("MEAN", (1, 4, 6), (4, 6), [0], table="ReducerOptions"), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_model_of_one_sample_at_a_time(case):
    model, batch = CASES[case]
    x = np.random.default_rng(0).integers(-128, 128, (5, *model.signature.inputs[0].shape[1:])).astype(np.int8)
    program = tflite.program(model, Arithmetic())
    assert program.batch == batch
    if case in ("reshape across samples", "pad across", "mean across"):  # an output without an axis for samples
        got = np.stack([program.run({"x": x[i : i + 1]}, lambda _: None).simulated[0].data for i in range(5)])
    else:
        got = simulate.simulate(program, {"x": x}).simulated
    want = answers(model, {"x": x})[0]
    np.testing.assert_array_equal(got.reshape(want.shape), want)


def test_a_model_of_several_samples_at_a_time_is_filled_up_and_cut():
    model = through("TRANSPOSE", (2, 2, 3), (3, 2, 2), [2, 1, 0], table="TransposeOptions")
    assert tflite.program(model, Arithmetic()).batch == 2
    wide = through("MEAN", (2, 4, 3), (2, 3), [1], table="ReducerOptions")
    x = np.random.default_rng(1).integers(-128, 128, (3, 4, 3)).astype(np.int8)
    got = simulate.simulate(tflite.program(wide, Arithmetic()), {"x": x}).simulated
    np.testing.assert_array_equal(got, answers(wide, {"x": x})[0])

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.core import preprocess
from edgelathe.core.errors import UserError
from edgelathe.core.preprocess import Preprocess, apply, parse

X = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3)).astype(np.uint8)


def test_mean_and_std_are_float32_arithmetic_and_layout_is_contiguous():
    got = apply(X, Preprocess(mean=127.5, std=127.5, layout="NHWC->NCHW"), "d")
    want = np.ascontiguousarray(((X.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)).transpose(0, 3, 1, 2))
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, want)


def test_blocks_give_the_same_bits(monkeypatch):
    whole = apply(X, Preprocess(mean=(1.5, 2.0, 3.0), std=(0.3, 7.0, 9.0)), "d")
    monkeypatch.setattr(preprocess, "BLOCK", 100)
    np.testing.assert_array_equal(apply(X, Preprocess(mean=(1.5, 2.0, 3.0), std=(0.3, 7.0, 9.0)), "d"), whole)
    np.testing.assert_array_equal(whole[..., 1], (X[..., 1].astype(np.float32) - np.float32(2)) / np.float32(7))


def test_one_mean_per_channel_finds_the_channels_of_stored_nchw():
    nchw = np.ascontiguousarray(X.transpose(0, 3, 1, 2))
    got = apply(nchw, Preprocess(mean=(1.0, 2.0, 3.0)), "d")
    np.testing.assert_array_equal(got[:, 2], nchw[:, 2].astype(np.float32) - 3)


def test_nothing_asked_keeps_the_stored_bytes():
    assert apply(X, Preprocess(), "d") is X
    assert apply(X, Preprocess(layout="NHWC->NCHW"), "d").dtype == np.uint8


def test_resize_is_by_the_short_side_then_crop_then_channels():
    ramp = np.tile(np.arange(40, dtype=np.uint8)[None, None, :, None], (1, 20, 1, 3)) * 6
    got = apply(ramp, Preprocess(resize=10, crop=(10, 10), channels="BGR"), "d")
    assert got.shape == (1, 10, 10, 3)
    assert got.dtype == np.uint8
    # 20x40 becomes 10x20, and the crop takes columns 5..14: column c is the mean of about 2c and 2c+1.
    np.testing.assert_allclose(got[0, 5, :, 0], (np.arange(5, 15) * 2 + 0.5) * 6, atol=1.5)
    flipped = apply(X, Preprocess(channels="BGR"), "d")
    np.testing.assert_array_equal(flipped, X[..., ::-1])
    assert apply(X, Preprocess(channels="gray"), "d").shape == (5, 6, 4, 1)


def test_resize_of_floats_keeps_their_units():
    values = np.full((2, 8, 8, 1), 0.25, np.float32)
    np.testing.assert_allclose(apply(values, Preprocess(resize=4), "d"), 0.25, rtol=1e-6)


def test_images_of_unequal_size_want_resize_and_crop():
    images = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 12, 3), np.uint8)]
    with pytest.raises(UserError, match=r"sample 1 is 8x12x3.*resize and crop"):
        apply(images, Preprocess(), "d")
    assert apply(images, Preprocess(crop=8), "d").shape == (2, 8, 8, 3)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"meen": 1}, ["preprocess.meen", "did you mean 'mean'"]),
        ({"std": 0}, ["preprocess.std", "not above 0"]),
        ({"std": [1, 0.0, 2]}, ["preprocess.std", "not above 0"]),
        ({"mean": "127"}, ["preprocess.mean", "no number"]),
        ({"mean": True}, ["preprocess.mean", "no number"]),
        ({"mean": []}, ["preprocess.mean"]),
        ({"mean": float("nan")}, ["preprocess.mean"]),
        ({"resize": 0}, ["preprocess.resize", "pixels"]),
        ({"crop": [1, 2, 3]}, ["preprocess.crop", "[height, width]"]),
        ({"channels": "RBG"}, ["preprocess.channels", "RGB"]),
        ({"layout": "NHWC"}, ["preprocess.layout", "NHWC->NCHW"]),
    ],
)
def test_a_wrong_key_or_value_is_named(table, words):
    with pytest.raises(UserError) as e:
        parse(table, "d.toml")
    assert all(w in str(e.value) for w in ["d.toml", *words]), str(e.value)


@pytest.mark.parametrize(
    ("steps", "values", "words"),
    [
        (Preprocess(mean=(1.0, 2.0)), X, ["preprocess.mean", "2 numbers", "6x4x3"]),
        (Preprocess(crop=9), X, ["sample 0 is 6x4", "crop 9x9"]),
        (Preprocess(layout="NHWC->NCHW"), X[:, 0], ["preprocess.layout", "5x4x3"]),
        (Preprocess(resize=9), np.zeros((3, 7)), ["sample 0", "resize, crop and channels out"]),
        (Preprocess(std=1e-3), np.full((2, 3), 1e38, np.float32), ["infinite"]),
    ],
)
def test_steps_that_do_not_fit_the_data_are_named(steps, values, words):
    with pytest.raises(UserError) as e:
        apply(values, steps, "d.toml")
    assert all(w in str(e.value) for w in ["d.toml", *words]), str(e.value)

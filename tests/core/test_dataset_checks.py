from __future__ import annotations

import numpy as np
import pytest

from edgelathe.core import dataset
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError
from edgelathe.core.signature import Signature, TensorInfo

RNG = np.random.default_rng(0)
A = RNG.integers(0, 256, (60, 8, 8, 3)).astype(np.uint8)
B = RNG.integers(0, 256, (80, 8, 8, 3)).astype(np.uint8)


def test_equal_statistics_are_no_warning():
    assert dataset.compare(Dataset("a", {"x": A}), Dataset("b", {"": B})) == []


@pytest.mark.parametrize("change", [lambda b: b / 255, lambda b: b + np.array([0.0, 90, 0]), lambda b: b * 2.2 - 150])
def test_another_preprocessing_is_noticed(change):
    notes = dataset.compare(Dataset("a", {"x": A}), Dataset("b", {"x": change(B).astype(np.float32)}))
    assert len(notes) == 1
    assert "differ clearly" in notes[0]


def test_channels_are_found_in_both_layouts():
    shifted = B.astype(np.float32)
    shifted[..., 2] += 80
    for axes in [(0, 1, 2, 3), (0, 3, 1, 2)]:
        notes = dataset.compare(Dataset("a", {"x": A.transpose(axes)}), Dataset("b", {"x": shifted.transpose(axes)}))
        assert "channel 2" in notes[0]


def test_samples_in_both_sets_are_found_whatever_their_dtype():
    b = B.copy()
    b[7], b[9], b[11] = A[5], A[5], A[2]
    a, b = Dataset("a", {"x": A}), Dataset("b", {"": b.astype(np.float32)})
    assert dataset.duplicates(a, b) == [(2, 11), (5, 7)]
    assert "2 of 60 samples of a are in b" in dataset.compare(a, b)[0]


def test_samples_that_differ_in_one_value_are_not_the_same():
    a = RNG.random((1, 5000)).astype(np.float32)
    b = a.copy()
    b[0, 4999] += 1  # beyond what the hash looks at
    assert dataset.duplicates(Dataset("a", {"": a}), Dataset("b", {"": b})) == []


@pytest.mark.parametrize(
    ("stored", "mean", "std", "word"),
    [
        (A / 255, 127.5, 127.5, "normalized twice"),
        (A / 127.5 - 1, 127.5, 127.5, "normalized twice"),
        (A, 0.485, 0.229, "0..1"),
        (A, 127.5, 127.5, None),
        (A / 255, 0.485, 0.229, None),
    ],
)
def test_units_of_mean_and_std(tmp_path, stored, mean, std, word):
    np.savez(tmp_path / "e.npz", x=stored)
    (tmp_path / "e.toml").write_text(f'path = "e.npz"\n[preprocess]\nmean = {mean}\nstd = {std}')
    notes = dataset.load(tmp_path / "e.toml").warnings
    assert len(notes) == (word is not None)
    assert word is None or word in notes[0]


@pytest.mark.parametrize(
    ("values", "scale", "zero", "word"),
    [
        (A, 1 / 127.5, 127, "not normalized"),
        (A / 127.5 / 127.5 - 1, 1 / 127.5, 127, "normalized twice"),
        (A, 1.0, 0, None),
        (A * (A > 200), 1.0, 0, None),
    ],
)
def test_integer_inputs_tell_whether_values_fit_their_range(values, scale, zero, word):
    info = TensorInfo("input", (None, 8, 8, 3), "uint8", scale, zero)
    notes = dataset.bind(Dataset("e.npz", {"": values}), Signature((info,), ())).warnings
    assert len(notes) == (word is not None)
    assert word is None or word in notes[0]


def test_real_sets_give_no_warning(data_dir):
    folder = data_dir / "cifar10_resnet8"
    calib, clean, jpeg = (dataset.load(folder / f"{n}.npz") for n in ("calib", "eval", "eval_jpeg"))
    assert dataset.compare(calib, clean) == dataset.compare(calib, jpeg) == dataset.compare(clean, jpeg) == []


@pytest.mark.parametrize("n", [8, 20, 540, 2000, 100_000])
def test_holdout_replays_and_is_disjoint(n):
    data = Dataset("d", {"": np.arange(n)[:, None]}, np.arange(n))
    calib, rest, rule = dataset.holdout(data)
    assert sorted([*calib, *rest]) == list(range(n))
    assert 2 <= len(calib) <= min(256, n // 4)
    assert len(calib) == n // rule["every"]
    np.testing.assert_array_equal(dataset.apply_holdout(data, rule).labels, calib)


def test_holdout_covers_sorted_and_alternating_labels():
    calib, _, _ = dataset.holdout(Dataset("d", {"": np.zeros((2000, 1))}))
    for labels in (np.arange(2000) // 200, np.arange(2000) % 10, np.arange(2000) % 8):
        counts = np.bincount(labels[calib])
        assert counts.min() >= 0.4 * counts.mean()


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ({"every": 4, "samples": 99}, "made for 99"),
        ({"every": 4}, "whole numbers"),
        ({"every": 0, "samples": 20}, "whole numbers"),
        ({"evry": 4, "samples": 20}, "evry"),
    ],
)
def test_a_rule_for_other_data_is_refused(rule, word):
    with pytest.raises(UserError, match=word):
        dataset.apply_holdout(Dataset("d", {"": np.zeros((20, 1))}), rule)


def test_too_few_to_hold_out():
    with pytest.raises(UserError, match="--calib"):
        dataset.holdout(Dataset("d", {"": np.zeros((7, 1))}))

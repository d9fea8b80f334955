"""A limit on what a metric may lose, over ways of ever more bits."""

import numpy as np
import pytest

from edgelathe.compress.mixed.dropped import Drop, counted
from edgelathe.core.dataset import Dataset
from edgelathe.core.errors import UserError

LABELS = np.arange(100) % 10
WANT = np.eye(10, dtype=np.float32)[LABELS]


def answers(wrong):
    """The float model's, but for so many."""
    have = WANT.copy()
    have[:wrong] = np.roll(have[:wrong], 1, axis=1)
    return have


def drop(text, wrong):
    return Drop.of(text, Dataset("d.npz", {"x": WANT}, LABELS), WANT, "integers").fewest(
        len(wrong), lambda way: answers(wrong[way])
    )


@pytest.mark.parametrize(
    ("text", "found", "said"),
    [
        ("5%", 2, "5% allowed, integers lose 4.0 points of top1 on 100 samples"),
        ("4%", 2, "4% allowed, integers lose 4.0 points of top1 on 100 samples"),
        ("1%", 4, "1% allowed, integers lose 1.0 points of top1 on 100 samples"),
        ("0.5%", 4, "0.5%, and so one of 100 samples, allowed, integers lose 1.0 points of top1 on 100 samples"),
        ("0%", 4, "0% allowed, even the most bits lose 1.0 points of top1 on 100 samples"),
    ],
)
def test_the_fewest_bits_that_keep_a_drop(text, found, said):
    assert drop(text, (60, 20, 4, 2, 1)) == (found, said)


def test_a_number_for_each_sample_without_labels_is_judged_by_its_spread():
    want = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
    one = Drop.of("1%", Dataset("d.npz", {"x": want}), want, "integers")
    assert one.fewest(2, lambda way: want * (1.2, 1.05)[way])[0] == 1
    with pytest.raises(UserError, match="auroc needs labels"):
        Drop.of("1%", Dataset("d.npz", {"x": want}, metric="auroc"), want, "integers")


def test_samples_are_taken_evenly_out_of_all():
    x = np.arange(2000)
    assert counted(Dataset("d.npz", {"x": x})).inputs["x"][[0, -1]].tolist() == [0, 1999]
    assert len(counted(Dataset("d.npz", {"x": x}))) == 512

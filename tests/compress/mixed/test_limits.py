import pytest

from edgelathe.compress.mixed import limits
from edgelathe.core.errors import UserError


def test_widths_are_sorted_and_said_once():
    assert limits.widths("float/8/4/8") == (4, 8, 32)
    assert limits.widths("16") == (16,)
    assert limits.widths("4/32") == limits.widths("4/float")


@pytest.mark.parametrize("text", ["", "9", "4,8", "1/8", "four", "4/"])
def test_what_is_no_width_is_refused(text):
    with pytest.raises(UserError, match="mixed: widths"):
        limits.widths(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.2x", (0.2, "x")),
        ("5bits", (5, "bits")),
        ("4.5bits", (4.5, "bits")),
        ("1bit", None),
        ("80kB", (80_000, "B")),
        ("1.5KiB", (1536, "B")),
        ("20000", (20_000, "B")),
        ("0x", None),
        ("0.2", None),
        ("x", None),
        ("5%", None),
        ("-3kB", None),
        ("40bits", None),
        ("3 apples", None),
    ],
)
def test_sizes(text, found):
    if found is not None:
        assert limits.size(text) == found
        return
    with pytest.raises(UserError, match="mixed: size"):
        limits.size(text)


def test_costs_are_shares():
    assert limits.cost("0.6x") == 0.6
    for text in ("0x", "0.6", "60%", "x"):
        with pytest.raises(UserError, match="mixed: cost"):
            limits.cost(text)


def test_drops_are_shares_or_plain_numbers():
    assert limits.drop("1%") == 0.01
    assert limits.drop(".5") == 0.5
    for text in ("", "-1%", "1pt", "%"):
        with pytest.raises(UserError, match="mixed: drop"):
            limits.drop(text)

"""Refusals whose figures can be followed."""

import re

import pytest

from edgelathe.compress.mixed import within
from edgelathe.compress.mixed.allocate import Choice, Room
from edgelathe.core.errors import UserError

MACS = {"first": 1000, "depthwise": 30}  # 3 bits and 8 bits at least: 0.3932 of those of 8 bits
CHOICES = {
    "first": [Choice(b, 100 * b, 1 / b, MACS["first"] * b * 8) for b in (3, 4, 8)],
    "depthwise": [Choice(8, 40, 0.1, MACS["depthwise"] * 8 * 8)],
}


@pytest.mark.parametrize("size", [None, 10_000])
def test_the_least_share_of_a_refusal_can_be_given(size):
    def bits(share):
        return within.fitting(CHOICES, Room(size, within.allowed(MACS, share)), f"cost={share}")[0]

    with pytest.raises(UserError, match="the fewest bits take") as refused:
        bits("0.2x")
    found = re.findall(r"\d\.\d+x", str(refused.value))[-1]
    assert found == "0.394x"
    assert bits(found) == {"first": 3, "depthwise": 8}
    with pytest.raises(UserError):
        bits("0.393x")

"""Refusals whose figures can be followed."""

import re

import pytest

from edgelathe.compress.mixed import sizes, within
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


def test_a_width_is_given_up_where_its_tables_cost_more_than_it_wins():
    tables = {b: sizes.shared_bytes(b) for b in (4, 6)}
    forms = [Choice(4, 4000, 1.0), Choice(6, 6000, 0.1), Choice(8, 8000, 0.0)]
    choices = {"a": forms, "b": forms, "c": [Choice(4, 400, 0.02), Choice(6, 600, 0.0)]}
    room = Room(12_600 + tables[6])  # all of 6 bits, with their tables alone
    assert tables[4] > 200  # with those of 4 bits too the smallest layer could not make room for the others
    assert within.fitting(choices, room, "")[0] == {"a": 6, "b": 6, "c": 6}

import json
import math

import pytest

from edgelathe.core.claim import Claim


def test_the_value_lies_between_its_bounds_or_it_is_no_claim():
    for bad in ((1.0, 1.1, 2.0), (1.0, 0.0, 0.9), (math.nan, 0.0, 1.0), (math.inf, 0.0, math.inf)):
        with pytest.raises(ValueError, match="no claim"):
            Claim(*bad)


@pytest.mark.parametrize(
    "claim", [Claim(2.0, 1.5, 2.5, n=30), Claim(2.0, -math.inf, math.inf), Claim.of(4096), Claim(0.0, 0.0, math.inf)]
)
def test_json_holds_the_claim(claim):
    assert Claim.from_json(json.loads(json.dumps(claim.to_json()))) == claim


def test_exact_has_no_width():
    assert Claim.of(7) == Claim(7, 7, 7, exact=True)


def test_units_and_inverse_keep_the_bounds_on_their_sides():
    latency = Claim(4.0, 2.0, 5.0, n=9)
    assert latency.scaled(1000) == Claim(4000, 2000, 5000, n=9)
    assert latency.inverse(1000) == Claim(250, 200, 500, n=9)
    assert Claim(4.0, -math.inf, math.inf).inverse(1000) == Claim(250, 0.0, math.inf)
    for impossible in (lambda: latency.scaled(0), Claim(0, 0, 0).inverse):
        with pytest.raises(ValueError, match="0"):
            impossible()

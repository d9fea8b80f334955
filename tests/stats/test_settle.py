import json
import math

import numpy as np
import pytest

from edgelathe.stats.settle import steady_state
from support.simulated import autoregressive

N = 120
TIMES = [5.0 * i for i in range(N)]


def run(shape, seed, rho=0.5, spread=0.01):
    """Medians around 10 ms of N windows of 5 s; 3% of the windows are disturbed."""
    rng = np.random.default_rng(seed)
    disturbed = 1 + 0.5 * (rng.random(N) < 0.03)
    return 10 * shape(np.arange(N) / N) * np.exp(spread * autoregressive(rng, N, rho)) * disturbed


def test_a_device_that_keeps_its_speed_has_no_onset():
    for seed in range(30):
        s = steady_state(TIMES, run(np.ones_like, seed, rho=0.8, spread=0.02))
        assert (s.onset_s, s.before, s.reported) == (None, None, None)
        assert s.low < s.level < s.high
        assert s.level == pytest.approx(10, rel=0.03)


def test_throttling_is_found_with_its_onset_and_its_level():
    inside = 0
    for seed in range(30):
        values = run(lambda t: 1 + 0.3 * (t > 0.4), seed)
        flags = [t > 0.45 for t in np.arange(N) / N]
        s = steady_state(TIMES, values, flags)
        assert s.onset_s == pytest.approx(245, abs=25)
        assert s.before == pytest.approx(10, rel=0.02)
        assert s.level == pytest.approx(13, rel=0.03)
        assert s.reported
        inside += s.low <= 13 <= s.high
    assert inside >= 25


def test_a_ramp_settles_at_its_end():
    for seed in range(20):
        s = steady_state(TIMES, run(lambda t: 1 + 0.4 * np.clip((t - 0.3) / 0.3, 0, 1), seed))
        assert 150 < s.onset_s < 280
        assert s.level == pytest.approx(14, rel=0.03)
        assert s.since_s > s.onset_s


def test_what_still_grows_slower_has_not_settled():
    s = steady_state(TIMES, [10.0] * 60 + [10 * (1 + 0.01 * i) for i in range(60)], [False] * N)
    assert s.onset_s is not None
    assert not s.settled
    assert s.reported is False


def test_a_device_that_becomes_faster_has_no_onset():
    s = steady_state(TIMES, run(lambda t: 1.2 - 0.2 * (t > 0.1), 0))
    assert s.onset_s is None
    assert s.since_s == pytest.approx(60, abs=25)
    assert s.level == pytest.approx(10, rel=0.02)


def test_few_windows_have_a_level_without_bounds():
    s = steady_state([0, 5], [10, 11])
    assert s.level == 10.5
    assert math.isinf(s.high)
    assert json.loads(json.dumps(s.to_json()))["high"] is None


def test_what_does_not_fit_is_refused():
    for times, medians, flags in (([], [], []), ([0], [1, 2], []), ([0], [1], [True, False]), ([0], [0], [])):
        with pytest.raises(ValueError, match="medians"):
            steady_state(times, medians, flags)

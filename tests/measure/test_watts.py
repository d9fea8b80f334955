"""Known powers give known energies."""

from __future__ import annotations

import numpy as np
import pytest

from edgelathe.measure import watts
from edgelathe.measure.watts import Block, Trace, Window
from edgelathe.stats.special import student


def power(t, values) -> Trace:
    return Trace("power", np.array(t, float), np.array(values, float))


def counter(t, values) -> Trace:
    return Trace("energy", np.array(t, float), np.array(values, float))


def test_a_ramp_by_the_trapezoid_rule_between_its_readings():
    ramp = power([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    assert watts.mean_watts(ramp, 0.5, 3.5) == pytest.approx(2.0)
    assert watts.mean_watts(ramp, 1.0, 4.0) == pytest.approx(2.5)


def test_uneven_readings_count_by_their_time():
    assert watts.mean_watts(power([0, 9, 9.5, 10], [1, 1, 3, 3]), 0, 10) == pytest.approx((9 + 1 + 1.5) / 10)


def test_too_few_readings_have_no_mean():
    assert watts.mean_watts(power([0, 1], [5, 5]), 0, 1) is None
    assert watts.mean_watts(counter([0, 1, 2, 3], [0, 0, 0, 4]), 0, 3) is None
    assert Window((power([0, 1], [5, 5]), power([0, 1, 2], [5, 5, 5])), 0, 2).watts() is None


def test_the_steps_of_a_slow_counter_do_not_bias_its_slope():
    t = np.arange(0, 2, 0.01)
    stairs = np.floor((t + 0.07) / 0.1) * 0.1 * 6  # 6 W, a new value every 100 ms
    assert watts.mean_watts(counter(t, stairs), 0.13, 1.77) == pytest.approx(6.0, rel=1e-6)


def test_rails_that_count_together_are_added():
    window = Window((power([0, 1, 2], [1, 1, 1]), counter([0, 1, 2, 3], [0, 2, 4, 6])), 0.0, 3.0)
    assert window.watts() == pytest.approx(3.0)


def block(before: float, load: float, after: float) -> Block:
    return Block(before, load, after, wall_s=2.0, inferences=400)


def test_net_energy_is_that_above_idling_and_a_linear_drift_cancels():
    assert block(2, 5, 2).net_mj == pytest.approx(15.0)
    assert block(2, 5.5, 3).net_mj == pytest.approx(15.0)
    assert block(2, 5, 2).gross_mj == pytest.approx(25.0)


def test_the_interval_is_students_on_the_differences():
    blocks = [block(2, load, 2) for load in (4.8, 5.0, 5.2)]
    got = watts.net(blocks)
    assert got.value == pytest.approx(15.0)
    assert got.high - got.value == pytest.approx(student(0.025, 2) * 1.0 / np.sqrt(3))
    assert got.claim.upper - got.value == pytest.approx(student(0.05, 2) * 1.0 / np.sqrt(3))
    with pytest.raises(ValueError, match="1 blocks"):
        watts.net(blocks[:1])


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(3), 0
    for _ in range(1000):
        drift = np.cumsum(rng.normal(0, 0.05, 8))
        noise = rng.normal(0, 0.2, (6, 3))
        blocks = [
            block(2 + drift[i] + noise[i, 0], 2.5 + drift[i] + noise[i, 1], 2 + drift[i] + noise[i, 2])
            for i in range(6)
        ]
        got = watts.net(blocks)
        covered += got.low <= 2.5 <= got.high
    assert covered >= 930


def test_a_sensor_that_rounds_without_noise_widens_the_interval_by_half_its_step():
    t = [0, 1, 2, 3]
    still = [Window((power(t, [2.0] * 4),), 0, 3), Window((power(t, [2.5] * 4),), 0, 3)]
    assert watts.rounding(still) == pytest.approx(0.25)
    lively = [Window((power(t, [2.0, 2.5, 2.0, 2.5]),), 0, 3), Window((power(t, [2.5, 3.0, 3.5, 2.0]),), 0, 3)]
    assert watts.rounding(lively) == 0
    blocks = [block(2, 5, 2)] * 3
    assert watts.net(blocks, 0.25).high == pytest.approx(15.0 + 0.25 * 5)


def test_a_stuck_sensor_is_one_that_never_changes():
    t = [0, 1, 2]
    assert watts.stuck([Window((power(t, [3, 3, 3]),), 0, 2), Window((power(t, [3, 3, 3]),), 0, 2)])
    assert not watts.stuck([Window((power(t, [3, 3, 3]),), 0, 2), Window((power(t, [4, 4, 4]),), 0, 2)])
    assert watts.stuck([Window((counter(t, [0, 0, 0]),), 0, 2)])
    assert not watts.stuck([])

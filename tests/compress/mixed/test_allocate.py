"""Allocations against all that there are."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from edgelathe.compress.mixed import allocate
from edgelathe.compress.mixed.allocate import Choice, Room, best, fewest, path, total


def layers(seed, count=6, forms=4):
    """More bytes lose less, by factors of any size."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        sizes = np.sort(rng.choice(400, forms, replace=False)) + 1
        losses = np.sort(rng.exponential(size=forms))[::-1] * 10 ** rng.uniform(-2, 2)
        out.append([Choice(i, int(b), float(v)) for i, (b, v) in enumerate(zip(sizes, losses, strict=True))])
    return out


def exhaustive(of, room):
    room = room if isinstance(room, Room) else Room(room)
    every = (total(of, p) for p in itertools.product(*(range(len(la)) for la in of)))
    return min((t.loss for t in every if room.holds(t)), default=None)


def with_operations(of, seed):
    """The same layers where bit operations go up with the bytes, but by another factor a layer."""
    rng = np.random.default_rng(seed)
    return [
        [replace(c, operations=int(f * c.bytes)) for c in layer]
        for layer, f in zip(of, 10 ** rng.uniform(0, 3, len(of)), strict=True)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_no_other_allocation_that_fits_loses_less(seed):
    of = layers(seed)
    least, most = (total(of, (i,) * len(of)).bytes for i in (0, 3))
    for budget in np.linspace(least, most, 7).astype(int):
        found = total(of, best(of, Room(int(budget))))
        assert found.bytes <= budget
        assert found.loss == pytest.approx(exhaustive(of, int(budget)))


@pytest.mark.parametrize("seed", range(4))
def test_under_one_limit_of_operations_no_other_loses_less_either(seed):
    of = with_operations(layers(seed), seed)
    least, most = (total(of, (i,) * len(of)).operations for i in (0, 3))
    for share in (0.0, 0.3, 0.6, 1.0):
        room = Room(operations=int(least + share * (most - least)))
        found = total(of, best(of, room))
        assert room.holds(found)
        assert found.loss == pytest.approx(exhaustive(of, room), rel=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_two_limits_are_kept_and_little_is_lost_against_the_best(seed):
    of = with_operations(layers(seed), seed)
    low, high = (total(of, (i,) * len(of)) for i in (0, 3))
    for a, b in ((0.2, 0.5), (0.5, 0.2), (0.4, 0.4), (0.9, 0.1)):
        room = Room(
            int(low.bytes + a * (high.bytes - low.bytes)),
            int(low.operations + b * (high.operations - low.operations)),
        )
        found = total(of, best(of, room))
        assert room.holds(found)
        assert exhaustive(of, room) * 0.999 <= found.loss <= exhaustive(of, room) * 1.05


def test_two_limits_that_each_could_be_kept_but_not_both_are_none():
    of = [[Choice(3, 60, 2.0, 10), Choice(8, 40, 1.0, 30)]]  # few bits take more bytes: tables
    assert best(of, Room(40, 30)) == (1,)
    assert best(of, Room(60, 10)) == (0,)
    assert best(of, Room(40, 10)) is None
    assert fewest(of, 40) == (1,)


def test_counted_in_coarse_units_the_budget_is_kept_and_little_is_lost(monkeypatch):
    of = layers(1)
    budget = (total(of, (0,) * 6).bytes + total(of, (3,) * 6).bytes) // 2
    exact = total(of, best(of, Room(budget))).loss
    monkeypatch.setattr(allocate, "_UNITS", 60)
    found = total(of, best(of, Room(budget)))
    assert found.bytes <= budget
    assert exact <= found.loss <= exhaustive(of, budget - 6 * (budget // 60 + 1))


def test_what_fits_nowhere_is_none_and_what_fits_wholly_loses_least():
    of = layers(2)
    assert best(of, Room()) == (3,) * 6
    assert best(of, Room(total(of, (0,) * 6).bytes - 1)) is None
    assert best(of, Room(total(of, (0,) * 6).bytes)) == (0,) * 6
    assert best(of, Room(10**9)) == (3,) * 6
    large = [[replace(c, bytes=(10**9 + 7) * c.bytes) for c in layer] for layer in of]  # no unit that all share
    large[0][0] = replace(large[0][0], bytes=1)
    assert best(large, Room()) == (3,) * 6


def test_equal_losses_take_the_fewest_bytes():
    of = [[Choice(8, 80, 1.0), Choice(4, 40, 1.0), Choice(2, 20, 1.0)]] * 3
    assert best(of, Room(10_000)) == best(of, Room()) == (2, 2, 2)


def test_a_layer_without_a_choice_is_paid_first():
    of = [[Choice(8, 80, 0.0)], [Choice(4, 40, 5.0), Choice(8, 80, 0.0)]]
    assert best(of, Room(120)) == (0, 0)
    assert best(of, Room(159)) == (0, 0)
    assert best(of, Room(160)) == (0, 1)


@pytest.mark.parametrize("seed", range(4))
def test_each_step_of_the_path_is_best_at_its_own_size(seed):
    of = layers(seed)
    ways = path(of)
    sizes, losses = zip(*((t.bytes, t.loss) for t in (total(of, p) for p in ways)), strict=True)
    assert sizes == tuple(sorted(sizes))
    assert losses == tuple(sorted(losses, reverse=True))
    assert ways[0] == (0,) * 6
    assert ways[-1] == (3,) * 6
    for size, loss in zip(sizes, losses, strict=True):
        assert loss == pytest.approx(exhaustive(of, size))
    gains = [(a - b) / (y - x) for a, b, x, y in zip(losses, losses[1:], sizes, sizes[1:], strict=False)]
    assert gains == sorted(gains, reverse=True)


def test_forms_that_cost_more_and_lose_more_are_never_on_the_path():
    of = [[Choice(2, 20, 3.0), Choice(3, 30, 4.0), Choice(4, 40, 1.0), Choice(8, 80, 1.0)]]
    assert path(of) == [(0,), (2,)]

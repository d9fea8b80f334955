"""Noise on all samples from some of them: against the whole, and against derivatives taken by differences."""

import numpy as np
import pytest

from edgelathe.compress.sensitivity import screening, strata
from edgelathe.compress.sensitivity.errors import Answer, each
from edgelathe.compress.sensitivity.known import Found
from edgelathe.compress.sensitivity.screening import Screen, gains
from edgelathe.compress.sensitivity.strata import Controls, Known, reaching


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("closing", [softmax, sigmoid])
def test_what_an_error_reaches_is_the_norm_of_the_derivative(closing):
    x = np.random.default_rng(0).normal(size=(6, 4)) * 3
    step = 1e-5
    norm = sum(np.square((closing(x + step * e) - closing(x - step * e)) / (2 * step)).sum(1) for e in np.eye(4))
    np.testing.assert_allclose(reaching(closing(x)), norm, rtol=1e-5)


def test_behind_anything_else_errors_reach_all_samples_alike():
    assert reaching(np.array([[-1.0, 2.0], [0.0, 9.0]])).tolist() == [1, 1]


def drawn(seed, n=1000):
    """Scores, and those of a changed model whose errors are larger where scores are."""
    rng = np.random.default_rng(seed)
    want = rng.normal(size=(n, 6)) * 5
    have = want + rng.normal(size=want.shape) * 0.03 * np.abs(want).max(axis=1, keepdims=True)
    return {"s": want, "p": softmax(want)}, {"s": have, "p": softmax(have)}


def known(values, rows):
    return Known.of({k: v[rows] for k, v in values.items()}, "s")


def estimated(seed):
    """Noise by name, of all samples from some, from the first ones alone, and truly; and the share that was run."""
    want, have = drawn(seed)
    first, rest = np.arange(screening.LEAST), np.arange(screening.LEAST, 1000)
    noise = {k: each(want[k], have[k]) for k in want}
    screen, controls = Screen(), Controls()
    screen.add(len(first), gains(want["s"][first], have["s"][first]), None)
    controls.add(known(want, first), {k: v[first] for k, v in noise.items()})
    told = known(want, rest)
    left = screening.others(np.concatenate([screen.rows(told.margins), told.heaviest]), len(rest))
    ran = rest[screening.others(left, len(rest))]
    errors = controls.errors(controls.standing(screen, told, left), told, left, {k: v[ran] for k, v in noise.items()})
    return {k: (errors[k][0].noise + v[first].sum(), v[first].mean() * 1000, v.sum()) for k, v in noise.items()}, len(
        ran
    ) / len(rest)


def test_strata_have_no_bias_and_are_nearer_than_the_first_samples():
    found = [estimated(seed) for seed in range(40)]
    assert 0.1 < np.mean([share for _, share in found]) < 0.7
    for name in ("s", "p"):
        ours, before, true = np.array([f[name] for f, _ in found]).T
        assert np.mean(ours / true) == pytest.approx(1, abs=0.03)
        assert np.std(ours / true) < (0.95 if name == "s" else 0.4) * np.std(before / true)


class Judge:
    outputs, hidden = ("p",), ("s",)


def test_without_samples_that_may_stand_for_them_none_is_left_out(monkeypatch):
    want, have = drawn(0)
    first = np.arange(screening.LEAST)
    told = known(want, np.arange(screening.LEAST, 1000))

    def found():
        one = Found(Judge(), np.empty((1000, 6)), early=False)
        noise = {k: each(want[k][first], have[k][first]) for k in want}
        one.add(
            Answer(have["p"][first], {}, gains(want["s"][first], have["s"][first]), noise), None, known(want, first)
        )
        return one.rows(told)

    assert 0 < len(found()) < 872
    monkeypatch.setattr(strata, "FEWEST", screening.LEAST + 1)
    assert found() is None

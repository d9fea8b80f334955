import os

import numpy as np
import pytest

from edgelathe.calibrate import cache, statistics
from edgelathe.core import files

RNG = np.random.default_rng(0)


def some(name="t", axis=1):
    return statistics.of(name, RNG.normal(size=(1, 3, 8)).astype(np.float32), axis)


def put(name, **found):
    with cache.opened(name) as known:
        known.statistics.update(found)


def get(name):
    with cache.opened(name) as known:
        return dict(known.statistics)


def folder():
    return files.cache_dir() / "statistics"


def test_what_was_kept_comes_back():
    a, b = some("a"), some("b", None)
    put("k", a=a)
    put("k", b=b)
    found = get("k")
    assert set(found) == {"a", "b"}
    assert found["b"].channels is None
    assert np.array_equal(found["a"].histogram.counts, a.histogram.counts)
    for field in ("mean", "m2", "low", "high", "axis", "count"):
        assert np.array_equal(getattr(found["a"].channels, field), getattr(a.channels, field))
    assert (found["a"].low, found["a"].shape, found["a"].samples) == (a.low, a.shape, 1)


def test_it_lives_where_the_user_keeps_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    put("k", t=some())
    assert [p.name for p in (tmp_path / "mine" / "edgelathe" / "statistics").iterdir()] == ["k.npz"]


@pytest.mark.parametrize(
    "damage", [lambda d: b"", lambda d: b"not a zip", lambda d: d[: len(d) // 2], lambda d: d[:-9] + b"x" * 9]
)
def test_a_damaged_entry_is_forgotten_and_made_anew(damage):
    put("k", t=some())
    path = folder() / "k.npz"
    path.write_bytes(damage(path.read_bytes()))
    assert get("k") == {}
    put("k", t=some())
    assert set(get("k")) == {"t"}


def test_a_flipped_byte_is_noticed():
    put("k", t=some())
    path = folder() / "k.npz"
    data = bytearray(path.read_bytes())
    at = data.index(b"counts.npy") + 60
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))
    assert get("k") == {}


def test_another_version_is_forgotten(monkeypatch):
    put("k", t=some())
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert get("k") == {}


def test_the_folder_is_bounded_and_what_was_unused_longest_goes(monkeypatch):
    for i, name in enumerate("abc"):
        put(name, t=some())
        os.utime(folder() / f"{name}.npz", (i, i))
    size = (folder() / "a.npz").stat().st_size
    monkeypatch.setattr(cache, "MOST_BYTES", int(2.5 * size))
    get("a")  # used again
    put("d", t=some())
    assert {p.stem for p in folder().iterdir()} == {"a", "d"}


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("EDGELATHE_CACHE", "off")
    put("k", t=some())
    assert not folder().exists()


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    put("k", t=some())
    assert get("k") == {}

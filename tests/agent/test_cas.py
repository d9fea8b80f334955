from __future__ import annotations

import hashlib
import os
import resource
import subprocess
from pathlib import Path

import pytest

from edgelathe_agent import cas
from edgelathe_agent.cas import Store
from edgelathe_agent.protocol import AgentError

DATA = bytes(range(256)) * 40
NAME = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "root"))


def kind(call, *args) -> str:
    with pytest.raises(AgentError) as e:
        call(*args)
    return e.value.kind


def files(store) -> list[str]:
    return sorted(p.name for p in Path(store.root).rglob("*") if p.is_file())


def test_a_file_arrives_in_pieces_and_is_whole_with_the_last(store):
    assert store.put(NAME, len(DATA), 0, DATA[:4000]) == (4000, False)
    assert store.sizes([NAME]) == ({}, {NAME: 4000})
    assert kind(store.find, NAME) == "missing"
    assert store.put(NAME, len(DATA), 4000, DATA[4000:]) == (len(DATA), True)
    assert store.sizes([NAME]) == ({NAME: len(DATA)}, {})
    assert Path(store.find(NAME)).read_bytes() == DATA
    assert files(store) == [NAME]


def test_a_broken_transfer_goes_on_where_it_ended_in_another_process(store):
    store.put(NAME, len(DATA), 0, DATA[:4000])
    again = Store(store.root)
    assert again.sizes([NAME])[1] == {NAME: 4000}
    assert again.put(NAME, len(DATA), 4000, DATA[4000:])[1]


def test_bytes_may_come_twice_but_a_gap_is_refused(store):
    store.put(NAME, len(DATA), 0, DATA[:4000])
    assert store.put(NAME, len(DATA), 2000, DATA[2000:3000]) == (4000, False)
    assert kind(store.put, NAME, len(DATA), 4001, DATA[4001:]) == "request"
    assert kind(store.put, NAME, len(DATA), -1, b"") == "request"
    assert kind(store.put, NAME, 4001, 4000, DATA[4000:]) == "request"
    assert store.put(NAME, len(DATA), 4000, DATA[4000:])[1]


def test_a_file_that_is_there_is_not_written_again(store):
    store.put(NAME, len(DATA), 0, DATA)
    before = Path(store.find(NAME)).stat().st_ino
    assert store.put(NAME, len(DATA), 0, b"other") == (len(DATA), True)
    assert Path(store.find(NAME)).read_bytes() == DATA
    assert Path(store.find(NAME)).stat().st_ino == before


def test_an_empty_file_is_a_file(store):
    empty = hashlib.sha256(b"").hexdigest()
    assert store.put(empty, 0, 0, b"") == (0, True)


def test_another_writer_of_the_same_file_does_not_get_wrong_bytes_in(store):
    store.put(NAME, len(DATA), 0, DATA[:4000])
    other = Store(store.root)
    os.utime(store.partial(NAME), ns=(1, 1))  # some time goes by
    other.put(NAME, len(DATA), 0, bytes(4000))
    assert kind(store.put, NAME, len(DATA), 4000, DATA[4000:]) == "corrupt"
    assert store.put(NAME, len(DATA), 0, DATA)[1]


def test_a_partial_file_that_is_too_long_does_not_stay_behind_the_whole_one(store):
    store.put(NAME, len(DATA) + 9, 0, DATA + b"more")
    assert store.put(NAME, len(DATA), 0, DATA)[1]
    assert Path(store.find(NAME)).read_bytes() == DATA


def test_wrong_bytes_are_refused_removed_and_can_be_sent_again(store):
    assert kind(store.put, NAME, len(DATA), 0, bytes(len(DATA))) == "corrupt"
    assert files(store) == []
    assert store.put(NAME, len(DATA), 0, DATA)[1]


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "/etc/passwd", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", None, 7, ["0" * 64]]
)
def test_a_name_is_a_hash_and_never_a_path(store, name):
    for call in (store.find, store.path, store.partial):
        assert kind(call, name) == "request"
    assert kind(store.put, name, 1, 0, b"x") == "request"
    assert kind(store.remove, [name]) == "request"
    assert not Path(store.root).exists()


def test_remove_counts_what_was_there(store):
    other = hashlib.sha256(b"other").hexdigest()
    store.put(NAME, len(DATA), 0, DATA)
    store.put(other, 5, 0, b"ot")
    assert store.remove([NAME, other, "0" * 64]) == 2
    assert files(store) == []


def test_what_cannot_fit_is_refused_before_its_first_byte_with_the_free_space(store):
    with pytest.raises(AgentError) as e:
        store.put(NAME, 1 << 60, 0, DATA)
    assert e.value.kind == "space"
    assert f"{1 << 60} more bytes" in e.value.what
    assert " free" in e.value.what
    assert kind(store.put, NAME, 1 << 60, 1 << 20, DATA) == "space"  # so says each chunk that was sent ahead
    assert files(store) == []


def test_a_write_that_finds_no_room_leaves_nothing_and_works_again_later(store):
    """A file size limit stands for the full disk: no error of the kernel's is simulated."""
    store.put(NAME, len(DATA), 0, DATA[:4000])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        assert kind(store.put, NAME, len(DATA), 4000, DATA[4000:]) == "space"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.sizes([NAME]) == ({}, {})
    assert store.put(NAME, len(DATA), 0, DATA)[1]


def test_what_was_not_used_for_long_makes_room(tmp_path, monkeypatch):
    monkeypatch.setattr(cas, "KEEP_BYTES", 25_000)
    names = []
    for i in range(4):
        data = bytes([i]) * 10_000
        names.append(hashlib.sha256(data).hexdigest())
        store = Store(str(tmp_path))  # each put by an agent of its own
        assert store.put(names[-1], len(data), 0, data)[1]
        if i < 2:
            os.utime(store.path(names[-1]), (1000 + i, 1000 + i))
    assert set(store.sizes(names)[0]) == set(names[2:])


def test_what_this_agent_uses_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(cas, "KEEP_BYTES", 15_000)
    store, names = Store(str(tmp_path)), []
    for i in range(4):
        data = bytes([i]) * 10_000
        names.append(hashlib.sha256(data).hexdigest())
        assert store.put(names[-1], len(data), 0, data)[1]
        os.utime(store.path(names[-1]), (1000 + i, 1000 + i))
    assert set(store.sizes(names)[0]) == set(names)


def test_a_file_stands_beside_the_model_that_names_it_and_both_names_go_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cas, "KEEP_BYTES", 25_000)
    store, names = Store(str(tmp_path)), []
    for i in range(2):
        data = bytes([i]) * 10_000
        names.append(hashlib.sha256(data).hexdigest())
        store.put(names[-1], len(data), 0, data)
    weights, model = names
    for _ in range(2):
        beside = Path(store.link(weights, model))
        assert beside.parent == Path(store.path(model)).parent
        assert beside.samefile(store.path(weights))
    assert kind(store.link, "0" * 64, model) == "missing"
    assert kind(store.link, "../etc", model) == "request"
    other = Store(str(tmp_path))
    os.utime(store.path(weights), (1000, 1000))
    for i in (2, 3):  # 30 kB and, were both names counted, 40 kB; one file of 10 kB makes room
        data = bytes([i]) * (10_000 if i == 2 else 100)
        assert other.put(hashlib.sha256(data).hexdigest(), len(data), 0, data)[1]
    assert not beside.exists()
    assert set(store.sizes(names)[0]) == {model}


def test_a_file_that_is_removed_leaves_no_second_name(tmp_path):
    store = Store(str(tmp_path))
    for data in (DATA, DATA[1:]):
        store.put(hashlib.sha256(data).hexdigest(), len(data), 0, data)
    model = hashlib.sha256(DATA[1:]).hexdigest()
    store.link(NAME, model)
    assert store.remove([NAME]) == 1
    assert files(store) == [model]


def test_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mount.stderr.decode().strip()}")
    try:
        store, big = Store(str(disk / "root")), bytes(100_000)
        name = hashlib.sha256(big).hexdigest()
        assert kind(store.put, name, len(big), 0, big[:1000]) == "space"
        assert store.put(NAME, len(DATA), 0, DATA)[1]
        (disk / "filler").write_bytes(bytes(45_000))
        other = DATA + DATA[:1]
        assert kind(store.put, hashlib.sha256(other).hexdigest(), len(other), 0, other) == "space"
        assert Path(store.find(NAME)).read_bytes() == DATA
    finally:
        subprocess.run(["umount", str(disk)], check=True)

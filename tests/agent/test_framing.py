from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelathe_agent import framing
from edgelathe_agent.framing import Frame, ProtocolError, TooLargeError, front, pack, take

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
frames = st.lists(st.tuples(st.dictionaries(st.text(), values, max_size=4), st.binary(max_size=200)), max_size=5)


@given(frames, st.data())
def test_frames_come_out_as_they_went_in_wherever_the_stream_is_cut(sent, data):
    stream = b"".join(pack(head, body) for head, body in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    buffer, got = bytearray(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        buffer += stream[start:end]
        while (frame := take(buffer)) is not None:
            got.append(frame)
    assert got == [Frame(head, body) for head, body in sent]
    assert not buffer


@given(st.binary(min_size=1, max_size=40).filter(lambda b: b[:4] != framing.MAGIC[: len(b[:4])]))
def test_anything_else_is_refused_at_once_and_named(noise):
    with pytest.raises(ProtocolError, match="banner"):
        take(bytearray(noise))


@given(st.binary(max_size=60), st.integers(0, 100))
def test_damage_is_an_error_or_a_wait_and_never_a_crash(noise, at):
    stream = bytearray(pack({"a": 1}, b"body"))
    stream[at : at + len(noise)] = noise
    with contextlib.suppress(ProtocolError):
        take(stream)


def test_a_large_payload_is_announced_with_its_header_and_the_stream_goes_on():
    buffer = bytearray(pack({"id": 7}, bytes(100)) + pack({"id": 8}))
    with pytest.raises(TooLargeError) as e:
        take(buffer, limit=99)
    assert (e.value.head, e.value.rest) == ({"id": 7}, 100)
    del buffer[: e.value.rest]
    assert take(buffer, limit=99) == Frame({"id": 8}, b"")


def test_a_large_payload_is_noticed_before_it_has_arrived():
    buffer = bytearray(front({"id": 7}, 100))
    with pytest.raises(TooLargeError):
        take(buffer, limit=99)


def test_nothing_is_sent_that_the_other_side_refuses(monkeypatch):
    monkeypatch.setattr(framing, "MAX_PAYLOAD", 10)
    monkeypatch.setattr(framing, "MAX_HEADER", 20)
    with pytest.raises(ProtocolError, match="payload 11"):
        pack({}, bytes(11))
    with pytest.raises(ProtocolError, match="header"):
        pack({"x": "y" * 20})


@pytest.mark.parametrize("text", [b"[1]", b"nul", b"\xff", b"[" * 100_000], ids=["list", "cut", "bytes", "deep"])
def test_a_header_that_is_no_object_is_refused(text):
    with pytest.raises(ProtocolError, match="JSON"):
        take(bytearray(framing.HEAD.pack(framing.MAGIC, len(text), 0) + text))

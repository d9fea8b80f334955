"""The client against a scripted peer: what a real agent does not do on demand."""

import json

import pytest

from edgelathe.core.errors import DeviceError
from edgelathe.device.bootstrap import Started
from edgelathe.device.client import IN_FLIGHT, AgentClient
from edgelathe.device.errors import AgentRefusal, ConnectionLost, ModelFailure
from edgelathe_agent.framing import pack, take
from edgelathe_agent.protocol import CHUNK, KINDS, PROTOCOL

HELLO = {"hello": 1, "protocol": PROTOCOL, "agent": "0" * 64, "python": "3.8.0", "machine": "armv7l", "root": "/r"}


class Peer:
    """A channel whose other end answers each request by `reply(head, body)`, in pieces of `size` bytes."""

    def __init__(self, reply=lambda head, body: b"", hello=None, size=7):
        self.out = bytearray(pack(HELLO) if hello is None else hello)
        self.reply, self.size, self.requests, self.most = reply, size, [], 0
        self._in, self.closed = bytearray(), False

    def read(self, size, limit=None):
        if not self.out and limit is not None:
            raise TimeoutError
        data = bytes(self.out[: min(size, self.size)])
        del self.out[: len(data)]
        return data

    def write(self, data):
        self._in += data
        while frame := take(self._in):
            self.requests.append(frame)
            self.most = max(self.most, len(self.requests) - sum(1 for _ in self.answered()))
            self.out += self.reply(frame.head, frame.body)

    def answered(self):
        return iter(())

    def last_words(self):
        return "Traceback\nMemoryError"

    def close(self):
        self.closed = True


def ok(head, body, **fields):
    return pack({"id": head["id"], "ok": True, **fields})


def refuse(kind):
    return lambda head, body: pack(
        {"id": head["id"], "ok": False, "error": {"kind": kind, "what": "so it is", "mend": ""}}
    )


@pytest.mark.parametrize("size", [1, 3, 16, 4096])
def test_answers_arrive_however_the_stream_is_cut(size):
    def reply(head, body):
        return pack({"id": head["id"], "event": "progress", "what": "half"}) + ok(head, body, clocks=1)

    heard = []
    client = AgentClient("cam", Started(Peer(reply, size=size), b""))
    frame = client.request("sense", progress=heard.append)
    assert frame.head["clocks"] == 1
    assert heard == ["half"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_refusals_name_the_device_and_a_mend_and_leave_the_client_usable(kind):
    client = AgentClient("cam", Started(Peer(refuse(kind)), b""))
    with pytest.raises(AgentRefusal, match=r"^cam: so it is; \S") as caught:
        client.request("sense")
    assert caught.value.kind == kind
    assert isinstance(caught.value, ModelFailure) == (kind in {"model", "crash", "memory", "time", "missing"})
    assert client.usable


def test_a_peer_that_ends_is_a_lost_connection_with_its_last_words():
    client = AgentClient("cam", Started(Peer(), b""))
    with pytest.raises(ConnectionLost, match="MemoryError"):
        client.request("sense")
    assert not client.usable
    with pytest.raises(ConnectionLost):
        client.request("sense")


@pytest.mark.parametrize(
    ("hello", "word"),
    [
        (pack({**HELLO, "protocol": PROTOCOL + 1}), "speaks protocol 2"),
        (pack({"protocol": PROTOCOL}), "speaks protocol"),
        (b"ELA1" + b"\xff" * 12, "frame too large"),
        (pack({}).replace(b"{}", b"[]"), "not a JSON object"),
        (b"", "does not greet within 0 s"),
    ],
)
def test_a_wrong_greeting_is_one_clear_line(hello, word):
    with pytest.raises(DeviceError, match=word):
        AgentClient("cam", Started(Peer(hello=hello), b""), limit=0.01)


def test_an_answer_to_another_request_is_a_bug_that_is_told():
    client = AgentClient("cam", Started(Peer(lambda head, body: pack({"id": 77, "ok": True})), b""))
    with pytest.raises(DeviceError, match="answer to nothing"):
        client.request("sense")


def test_an_interrupt_in_the_middle_makes_the_client_unusable():
    peer = Peer()
    client = AgentClient("cam", Started(peer, b""))

    def interrupted(size, limit=None):
        raise KeyboardInterrupt

    peer.read = interrupted
    with pytest.raises(KeyboardInterrupt):
        client.request("sense")
    assert not client.usable


def test_what_a_long_request_is_at_is_told_to_its_own_listener_else_to_the_clients():
    def slowly(head, body):
        return pack({"id": head["id"], "event": "progress", "what": f"at {head['do']}"}) + ok(head, body)

    heard, own = [], []
    client = AgentClient("cam", Started(Peer(slowly), b""), progress=heard.append)
    client.request("open")
    client.request("install", progress=own.append)
    client.progress = None
    client.request("open")
    assert (heard, own) == (["at open"], ["at install"])


def test_put_sends_all_chunks_from_the_offset_on():
    data = bytes(range(256)) * (5 * CHUNK // 256) + b"tail"
    peer = Peer(lambda head, body: ok(head, body, received=0, done=False), size=1 << 20)
    client = AgentClient("cam", Started(peer, b""))
    client.put("ab", memoryview(data), offset=2 * CHUNK)
    assert [f.head["offset"] for f in peer.requests] == [2 * CHUNK, 3 * CHUNK, 4 * CHUNK, 5 * CHUNK]
    assert b"".join(f.body for f in peer.requests) == data[2 * CHUNK :]
    assert {f.head["size"] for f in peer.requests} == {len(data)}
    assert client.sent_bytes == len(data) - 2 * CHUNK


def test_put_sends_an_empty_file_as_one_empty_chunk():
    peer = Peer(lambda head, body: ok(head, body, received=0, done=True))
    AgentClient("cam", Started(peer, b"")).put("ab", memoryview(b""))
    assert [(f.head["offset"], f.body) for f in peer.requests] == [(0, b"")]


def test_a_refused_put_stops_soon_and_takes_the_answers_that_are_on_their_way():
    peer = Peer(refuse("space"), size=1 << 20)
    client = AgentClient("cam", Started(peer, b""))
    with pytest.raises(AgentRefusal, match="so it is"):
        client.put("ab", memoryview(bytes(100 * CHUNK)))
    assert len(peer.requests) == IN_FLIGHT + 1
    assert client.usable
    assert json.dumps(peer.requests[0].head)

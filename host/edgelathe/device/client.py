"""The host's side of the protocol: one agent, asked one thing after the other."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from edgelathe.core.errors import DeviceError
from edgelathe.device.bootstrap import START_SECONDS, Started
from edgelathe.device.errors import ConnectionLost, Progress, from_agent, lost, translate
from edgelathe_agent import framing
from edgelathe_agent.framing import Frame, ProtocolError
from edgelathe_agent.protocol import CHUNK, PROTOCOL, AgentError

if TYPE_CHECKING:
    from collections.abc import Mapping

READ = 1 << 18
#: Chunks under way without an answer: at 1 MiB each enough for 10 Gb/s over 20 ms.
IN_FLIGHT = 24


class Content(Protocol):
    """The bytes of a file, to be taken in pieces."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: slice, /) -> bytes | memoryview: ...


class AgentClient:
    """A running agent. Not to be shared between threads.

    `progress` hears what long requests are at, unless a request has a listener of its own.

    Raises DeviceError when the agent does not greet in time or speaks another version of the protocol.
    """

    def __init__(
        self, device: str, started: Started, limit: float = START_SECONDS, progress: Progress | None = None
    ) -> None:
        self.device, self._channel, self.progress = device, started.channel, progress
        self._buffer = bytearray(started.begun)
        self._last, self._open = 0, True
        self._waiting: deque[int] = deque()  # requests whose answers are on their way
        self.sent_bytes = 0  # payload bytes of `put`, for reports
        self.hello: Mapping[str, Any] = self._greet(limit)

    @property
    def usable(self) -> bool:
        """Whether requests can still be made: not closed, not lost, not interrupted in the middle of one."""
        return self._open and not self._waiting

    def request(self, verb: str, fields: Mapping[str, Any] | None = None, progress: Progress | None = None) -> Frame:
        """Ask and wait for the answer. Raises the DeviceError that `ok: false` stands for, and ConnectionLost."""
        if not self.usable:
            raise lost(self.device, "the connection is closed")
        self._ask(verb, fields or {})
        return self._answer(progress)

    def put(self, sha256: str, data: Content, offset: int = 0) -> None:
        """Send a file from `offset` on, many chunks ahead of the answers, so that the link's delay does not count."""
        if not self.usable:
            raise lost(self.device, "the connection is closed")
        refused: DeviceError | None = None
        for at in range(offset, max(len(data), 1), CHUNK):
            chunk = data[at : at + CHUNK]
            self._ask("put", {"sha256": sha256, "size": len(data), "offset": at}, chunk)
            self.sent_bytes += len(chunk)
            if len(self._waiting) > IN_FLIGHT:
                refused = self._refusal()
            if refused:
                break
        while self._waiting:
            refused = self._refusal() or refused
        if refused:
            raise refused

    def close(self) -> None:
        """End the agent; may be called again."""
        self._open = False
        self._channel.close()

    def _ask(self, verb: str, fields: Mapping[str, Any], body: bytes | memoryview = b"") -> None:
        self._last += 1
        self._waiting.append(self._last)
        try:
            self._channel.write(framing.front({"id": self._last, "do": verb, **fields}, len(body)))
        except ProtocolError as e:
            raise translate(e, device=self.device) from e
        if body:
            self._channel.write(body)

    def _answer(self, progress: Progress | None = None) -> Frame:
        """The answer to the oldest request. One that does not come leaves the client unusable."""
        while True:
            frame = self._next(None)
            if frame.head.get("id") != self._waiting[0]:
                raise DeviceError(self.device, f"an answer to nothing: {frame.head!r:.120}", "please report this")
            if "event" not in frame.head:
                break
            tell = progress or self.progress
            if tell:
                tell(str(frame.head.get("what", "")))
        self._waiting.popleft()
        if frame.head.get("ok") is not True:
            error = frame.head.get("error") or {}
            kind, what, mend = (str(error.get(k) or "") for k in ("kind", "what", "mend"))
            raise from_agent(self.device, AgentError(kind or "internal", what or "no reason given", mend))
        return frame

    def _refusal(self) -> DeviceError | None:
        """Take one answer; what it refuses, when it does. A broken link is raised."""
        try:
            self._answer()
        except ConnectionLost:
            raise
        except DeviceError as e:
            return e
        return None

    def _next(self, limit: float | None) -> Frame:
        deadline = None if limit is None else time.monotonic() + limit
        try:
            while (frame := framing.take(self._buffer)) is None:
                left = None if deadline is None else max(0.01, deadline - time.monotonic())
                more = self._channel.read(READ, left)
                if not more:
                    raise self._gone()
                self._buffer += more
        except ProtocolError as e:
            raise translate(e, device=self.device) from e
        return frame

    def _gone(self) -> DeviceError:
        words = self._channel.last_words().splitlines()
        return lost(self.device, f"the agent ended: {words[-1][:200]}" if words else "the connection was lost")

    def _greet(self, limit: float) -> Mapping[str, Any]:
        try:
            hello = self._next(limit).head
        except TimeoutError:
            mend = f"run `edgelathe device doctor {self.device}`"
            raise DeviceError(self.device, f"the agent does not greet within {limit:.0f} s", mend) from None
        if "hello" not in hello or hello.get("protocol") != PROTOCOL:
            raise DeviceError(
                self.device,
                f"its agent speaks protocol {hello.get('protocol')}, this edgelathe {PROTOCOL}",
                f"run `edgelathe device install {self.device}` again",
            )
        return hello

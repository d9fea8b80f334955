"""What a transport is: it starts one program on a device and gives its standard input and output."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Channel(Protocol):
    """The standard streams of one program on a device. Errors are DeviceErrors, ConnectionLost where the link broke."""

    def read(self, size: int, limit: float | None = None) -> bytes:
        """1 to `size` bytes of its output; b"" at its end. TimeoutError after `limit` seconds without any."""

    def write(self, data: bytes | memoryview) -> None:
        """All of `data` to its input; blocks while the other side takes none."""

    def close_input(self) -> None:
        """End of its input."""

    def wait(self, limit: float) -> int | None:
        """Its exit status, None if it runs on after `limit` seconds or nobody knows."""

    def last_words(self) -> str:
        """The end of what it wrote to its standard error."""

    def close(self) -> None:
        """End it and everything that belongs to it; may be called again."""


class Transport(Protocol):
    """One way to reach a device."""

    name: str

    def start(self, argv: Sequence[str]) -> Channel:
        """Start a program there. The arguments reach it as they are, whatever shell lies between."""

    def close(self) -> None:
        """Close the link and all that it started; may be called again."""


class Finished(NamedTuple):
    """A program that ended: exit status (None: unknown), output, end of its standard error."""

    code: int | None
    out: bytes
    err: str


def run(transport: Transport, argv: Sequence[str], data: bytes = b"", limit: float = 60.0) -> Finished:
    """Run a program on the device to its end. TimeoutError after `limit` seconds of silence.

    `data` is its input, all written before its output is read: at most what a pipe holds, 64 KB.
    """
    channel = transport.start(argv)
    try:
        if data:
            channel.write(data)
        channel.close_input()
        out = bytearray()
        while chunk := channel.read(1 << 16, limit):
            out += chunk
        return Finished(channel.wait(limit), bytes(out), channel.last_words())
    finally:
        channel.close()

"""The local transport: the agent as a child process on this machine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
from typing import TYPE_CHECKING

from edgelathe.core.errors import DeviceError
from edgelathe.device.errors import lost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgelathe.device.transport import Channel

#: Seconds that a program has to end by itself after its input was closed.
GRACE = 3.0


class LocalTransport:
    """Starts programs on this machine. They get a session of their own, so Ctrl-C reaches only the host's side."""

    def __init__(self, name: str = "local") -> None:
        self.name = name
        self._open: list[LocalChannel] = []

    def start(self, argv: Sequence[str]) -> Channel:
        """Start a child process."""
        channel = LocalChannel(self.name, argv)
        self._open.append(channel)
        return channel

    def close(self) -> None:
        """End every child that runs still."""
        for channel in self._open:
            channel.close()
        self._open.clear()


class LocalChannel:
    """The pipes of one child process; its standard error goes to an unnamed file, so nothing has to drain it."""

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        self._name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as e:
            self._stderr.close()
            raise DeviceError(name, f"{argv[0]} does not start: {e.strerror}", "name another with --python") from e
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    def read(self, size: int, limit: float | None = None) -> bytes:
        """See Channel."""
        if limit is not None and not select.select([self._out], [], [], limit)[0]:
            raise TimeoutError
        return os.read(self._out.fileno(), size)

    def write(self, data: bytes | memoryview) -> None:
        """See Channel."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._in.fileno(), view) :]
        except (BrokenPipeError, ValueError) as e:
            raise lost(self._name, f"the agent ended: {self.last_words() or 'without a word'}") from e

    def close_input(self) -> None:
        """See Channel."""
        self._in.close()

    def wait(self, limit: float) -> int | None:
        """See Channel."""
        try:
            return self._process.wait(limit)
        except subprocess.TimeoutExpired:
            return None

    def last_words(self) -> str:
        """See Channel."""
        if self._stderr.closed:
            return ""
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), 2000, max(0, size - 2000)).decode(errors="replace").strip()

    def close(self) -> None:
        """Close its input, wait for it to end, end it by force after that."""
        self._in.close()
        if self.wait(GRACE) is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._out.close()
        self._stderr.close()

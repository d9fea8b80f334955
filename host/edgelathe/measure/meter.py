"""An external power meter: a command of the user's that prints lines of time and watts while we measure."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgelathe.core.errors import UserError
from edgelathe.measure.watts import Trace

#: Seconds that a meter may take until its first line, and that it gets to end by itself.
FIRST_LINE, GRACE = 10.0, 2.0
_MEND = "it has to print lines of `time watts` or `watts`, at once (unbuffered), until it is ended"

Times = NDArray[np.float64]

#: Seconds that the meter's clock may run ahead from one line to the next, against ours, before it counts as set.
_JUMP = 5.0


class Line(NamedTuple):
    """One reading; `stamp`: the meter's own time in seconds, None where the line has none."""

    stamp: float | None
    watts: float


class ExternalMeter:
    """Runs the command, without a shell, and reads its lines in a thread. A context manager: it ends the command.

    Lines are `time watts` or `watts`, parted by spaces or a comma; time is in Unix seconds or ISO 8601. The meter's
    clock need not be right: its offset is that of the line that came with the least delay (the filter of NTP, RFC 5905,
    section 10), so a delay that all lines have in common stays in. Without a time the arrival of a line counts.

    Raises UserError where it cannot be started, or says nothing within FIRST_LINE seconds.
    """

    def __init__(self, command: str) -> None:
        self.command, self._where = command, f"--meter '{command}'"
        self._lines: list[tuple[float, Line]] = []
        self._bad: list[str] = []
        self._numbers = 0
        self._changed = threading.Condition()
        self._last_words = ""

    def __enter__(self) -> ExternalMeter:
        try:
            argv = shlex.split(self.command)
        except ValueError as e:
            raise UserError(self._where, f"cannot be split into words ({e})", "close the quotes") from e
        if not argv:
            raise UserError("--meter", "is empty", "give the command that reads your meter")
        try:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as e:
            raise UserError(self._where, f"cannot be started ({e.strerror})", "check the path; no shell is used") from e
        self._threads = [threading.Thread(target=f, daemon=True) for f in (self._read, self._listen)]
        for thread in self._threads:
            thread.start()
        try:
            self._wait(FIRST_LINE, 1)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the command and all that it started."""
        for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        for thread in self._threads:
            thread.join(GRACE)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    @staticmethod
    def now() -> float:
        """The clock that its readings are on, in seconds."""
        return time.monotonic()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was wrong with its lines and their times."""
        out = []
        if self._bad:
            out.append(
                f"{self._where}: {len(self._bad)} of {self._numbers} lines are no reading, {self._bad[0]}; {_MEND}"
            )
        arrived, stamps = self._times()
        if stamps is not None and _jumps(arrived, stamps):
            out.append(f"{self._where}: its clock was set meanwhile, so the arrival of its lines counts; run it again")
        elif stamps is None and len(arrived) > 3 and np.median(np.diff(arrived)) < 1e-3:
            out.append(f"{self._where}: its lines come in bursts; let it flush each line, or print the time too")
        return tuple(out)

    def trace(self, until: float) -> Trace:
        """All readings, once one has come that is later than `until`, so that the last window is whole.

        Raises UserError when the command has ended, or gives no reading any more.
        """
        patience = FIRST_LINE + 4 * (self.refresh_s() or 0)
        deadline = self.now() + patience
        while True:
            taken = self._taken()
            if len(taken[0]) and taken[0][-1] >= until:
                return Trace("power", *taken)
            self._wait(deadline - self.now(), len(self._lines) + 1)

    def refresh_s(self) -> float | None:
        """Median time between two readings; None for fewer than four."""
        t, _ = self._taken()
        return float(np.median(np.diff(t))) if len(t) > 3 else None

    def _taken(self) -> tuple[Times, NDArray[np.float64]]:
        arrived, stamps = self._times()
        watts = np.array([line.watts for _, line in self._lines[: len(arrived)]], np.float64)
        if stamps is None or _jumps(arrived, stamps) or not len(stamps):
            return arrived, watts
        t = stamps + (arrived - stamps).min()
        order = np.argsort(t, kind="stable")
        return t[order], watts[order]

    def _times(self) -> tuple[Times, Times | None]:
        """When the lines came, and the times that they say (None: not all say one)."""
        with self._changed:
            lines = list(self._lines)
        arrived = np.array([at for at, _ in lines], np.float64)
        stamps = [line.stamp for _, line in lines]
        return arrived, None if None in stamps else np.array(stamps, np.float64)

    def _wait(self, seconds: float, lines: int) -> None:
        """Until so many lines came. Raises UserError when the command ended before, or the time is over."""
        deadline = self.now() + seconds
        with self._changed:
            while len(self._lines) < lines:
                if self._process.poll() is not None and not self._threads[0].is_alive():
                    self._threads[1].join(GRACE)  # its last words may be on their way
                    words = f": {self._last_words}" if self._last_words else ""
                    what = f"ended with code {self._process.returncode} after {len(self._lines)} readings{words}"
                    raise UserError(self._where, what, _MEND)
                left = deadline - self.now()
                if left <= 0:
                    bad = f" (line {self._bad[0]})" if self._bad else ""
                    raise UserError(self._where, f"gave no reading for {seconds:.0f} s{bad}", _MEND)
                self._changed.wait(min(left, 0.2))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            arrived, text = self.now(), raw.decode(errors="replace").strip()
            if not text or text.startswith("#"):
                continue
            with self._changed:
                self._numbers += 1
                try:
                    self._lines.append((arrived, parse(text)))
                except ValueError as e:
                    if self._numbers == 1 and not any(c.isdigit() for c in text):
                        continue  # the names of the columns
                    self._bad.append(f"{self._numbers} ({text[:60]!r}): {e}")
                self._changed.notify_all()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for raw in self._process.stderr:
            text = raw.decode(errors="replace").strip()
            if text:
                self._last_words = text[:200]


def _jumps(arrived: Times, stamps: Times) -> bool:
    """Whether the meter's clock was set: its time goes back, or far ahead of ours, between two lines."""
    steps = np.diff(stamps)
    return bool(((steps < 0) | (steps > np.diff(arrived) + _JUMP)).any())


def parse(text: str) -> Line:
    """One line: `watts`, or time and watts. Raises ValueError saying what is wrong with it."""
    words = text.replace(",", " ").replace(";", " ").split()
    if not words:
        raise ValueError("it is empty")
    try:
        watts = float(words[-1])
    except ValueError:
        raise ValueError(f"'{words[-1]}' are no watts") from None
    if not abs(watts) < 1e6:
        raise ValueError(f"{watts} W")
    return Line(_stamp(words[:-1]) if words[1:] else None, watts)


def _stamp(words: list[str]) -> float:
    text = " ".join(words)
    try:
        stamp = float(text)
    except ValueError:
        try:
            stamp = datetime.fromisoformat(text).timestamp()
        except ValueError:
            raise ValueError(f"'{text}' is no time in Unix seconds or ISO 8601") from None
    if not 0 <= stamp < 1e11:
        raise ValueError(f"'{text}' is no time in Unix seconds")
    return stamp

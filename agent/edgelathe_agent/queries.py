"""In the child: calls of an engine on the samples fed to it, one after the other, at once or paced, and their time."""

from __future__ import annotations

import array
import threading
import time
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence

from edgelathe_agent import framing

clock = time.perf_counter_ns  # CLOCK_MONOTONIC on Linux: no jump of wall time touches it
#: Most queries of a block: an answer holds no more.
MOST = framing.MAX_PAYLOAD // 8


class Stream:
    """An engine and what its calls read: `batch` of `n` samples, cyclically, in buffers of its own."""

    def __init__(self, engine: Any, samples: Sequence[Any], batch: int, n: int) -> None:
        self.engine, self.run, self._samples, self._n = engine, engine.run, samples, n
        self.batch, self._staged = batch, -1

    def stage(self, first: int) -> None:
        """The next call reads samples from `first` on. Raises AgentError("corrupt") when they are gone."""
        first %= self._n
        if first != self._staged:
            for s in self._samples:
                s.load(first)
            self.engine.stage()
            self._staged = first

    def close(self) -> None:
        """Its samples are not read any more."""
        for s in self._samples:
            s.close()


class Single:
    """Queries of one call in this thread: nothing but the bare call lies between the two readings of the clock."""

    def __init__(self, stream: Stream) -> None:
        self.ready, self.step = stream.stage, stream.batch
        bare = stream.run

        def run() -> int:
            start = clock()
            bare()
            return clock() - start

        self.run = run

    def close(self) -> None:
        """There is nothing to end."""


class Several:
    """Queries of as many calls as `samples` take, over the streams at once.

    The first stream's calls run in this thread, those of each other in a thread that lives as long as this and waits
    in the kernel between queries. Each stream has its first call; who is done takes the next one of those that are
    left. A query ends with the last reading of the clock after a call: only the start of the threads is our cost.
    """

    def __init__(self, streams: Sequence[Stream], samples: int) -> None:
        self.step, self._batch = samples, streams[0].batch
        self._calls = -(-samples // self._batch)
        self._first = 0
        self._left: Iterator[int] = iter(())
        self._mine, *others = streams[: self._calls]
        self._workers = [_Worker(s, self._work) for s in others]

    def ready(self, first: int) -> None:
        """The first samples of each stream are read."""
        self._first, self._left = first, iter(range(1 + len(self._workers), self._calls))
        for number, stream in enumerate([self._mine, *(w.stream for w in self._workers)]):
            stream.stage(first + number * self._batch)

    def run(self) -> int:
        """Nanoseconds from giving the calls out to the end of the last. Raises what a call raised when all are done."""
        start = clock()
        for w in self._workers:
            w.go.release()
        error: Optional[Exception] = None
        end = start
        try:
            end = self._work(self._mine)
        except Exception as e:
            error = e
        for w in self._workers:
            w.done.acquire()
            end, error = max(end, w.end), error or w.error
        if error is not None:
            raise error
        return end - start

    def close(self) -> None:
        """Its threads end."""
        for w in self._workers:
            w.leave()

    def _work(self, stream: Stream) -> int:
        run = stream.run
        run()
        for number in self._left:  # shared: the iterator's next is one step of the interpreter
            stream.stage(self._first + number * self._batch)
            run()
        return clock()


class _Worker:
    """A thread with one stream. `go` and `done` are locks that one side takes and the other releases."""

    def __init__(self, stream: Stream, work: Callable[[Stream], int]) -> None:
        self.stream, self._work, self._stay = stream, work, True
        self.end = 0
        self.error: Optional[Exception] = None
        self.go, self.done = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.done.acquire()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """The thread is gone."""
        self._stay = False
        self.go.release()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            self.go.acquire()
            if not self._stay:
                return
            self.error = None
            try:
                self.end = self._work(self.stream)
            except Exception as e:
                self.error = e
            self.done.release()


class Block(NamedTuple):
    """Nanoseconds of each query, how many started after their time, and nanoseconds of all."""

    times: array.array[int]
    late: int
    wall_ns: int


def block(queries: Any, first: int, calls: int, min_ms: float, period_ms: float = 0.0) -> Block:
    """Queries (`Single` or `Several`) from sample `first` on, until both `calls` and `min_ms` are reached.

    With `period_ms` each starts so long after the one before; it is `late` when that one took longer.
    """
    ready, run, step, period = queries.ready, queries.run, queries.step, int(period_ms * 1e6)
    times, late = array.array("q"), 0
    begun = due = clock()
    end = begun + int(min_ms * 1e6)
    while (len(times) < calls or clock() < end) and len(times) < MOST:
        ready(first)
        if period:
            if times and clock() > due:
                late, due = late + 1, clock()
            _sleep_until(due)
            due += period
        times.append(run())
        first += step
    return Block(times, late, clock() - begun)


def _sleep_until(due: int) -> None:
    """Sleep in the kernel until the clock says `due`: of a sleep that ends early the rest is slept, nothing spins."""
    while True:
        left = due - clock()
        if left <= 0:
            return
        time.sleep(left / 1e9)

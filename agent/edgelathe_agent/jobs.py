"""Child processes with limits, and the one place where the agent waits.

The agent has one thread. Whenever it waits, for the host or for a child, it waits here, over its own stdin and the
pipes of all children at once, so that a host that goes away ends whatever is under way.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import selectors
import signal
import subprocess
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union

from edgelathe_agent import cgroup
from edgelathe_agent.framing import Frame, ProtocolError, take
from edgelathe_agent.memory import oom_kills, rss_bytes
from edgelathe_agent.protocol import MAX_REQUEST, AgentError

#: Most bytes of requests that may wait while another one is answered.
BACKLOG = 8 * MAX_REQUEST
#: How much of the last words of a child is kept.
_TAIL = 4096
_READ = 1 << 20
_PR_SET_PDEATHSIG = 1
_F_SETPIPE_SZ = 1031
#: Out of memory: the children go before the agent, and before most of the device's own work.
_OOM_SCORE = b"800"


Tick = Optional[Callable[[], None]]
"""What is done `every` so many seconds while a child is waited for."""


class GoneError(Exception):
    """The host closed the connection."""


class Job:
    """A child in a process group of its own. `out`: what it wrote and nobody has taken yet; `err`: its last words."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.pid = process, process.pid
        self.out, self.err = bytearray(), bytearray()
        self.open_pipes = 0
        self.doing = ""  # what it last said that it is at
        self.group: Optional[str] = None  # its control group
        self.oom_kills = oom_kills()  # of the kernel, when it started

    def why(self) -> str:
        """How it ended, in words: signal or exit code, and the last line that it wrote."""
        code = self.process.returncode
        end = f"ended with code {code}" if code is None or code >= 0 else "was killed by " + _signal(-code)
        lines = bytes(self.err).decode(errors="replace").strip().splitlines()
        return end + (": " + lines[-1].strip()[:300] if lines else "")


class Jobs:
    """All children of this agent, and its inbox: what the host has sent and nobody has taken yet."""

    def __init__(self, stdin: int) -> None:
        self.inbox = bytearray()
        self._jobs: List[Job] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(stdin, selectors.EVENT_READ, None)
        with contextlib.suppress(OSError):  # no pipe, or not Linux
            fcntl.fcntl(stdin, _F_SETPIPE_SZ, _READ)

    def pump(self, seconds: Optional[float] = None) -> None:
        """Wait for bytes from anywhere, at most `seconds` if given. Raises GoneError when the host has closed stdin."""
        for key, _ in self._selector.select(seconds):
            data = os.read(key.fd, _READ)
            if key.data is None:
                if not data:
                    raise GoneError
                self.inbox += data
                if len(self.inbox) > BACKLOG:
                    raise ProtocolError(f"{len(self.inbox)} bytes of requests wait unanswered")
                continue
            job, sink = key.data
            if not data:
                self._selector.unregister(key.fileobj)
                job.open_pipes -= 1
            sink += data
            if sink is job.err:
                del sink[:-_TAIL]

    def start(self, argv: List[str], env: Optional[Dict[str, str]] = None, merge: bool = False) -> Job:
        """A child that ends with the agent, whichever way the agent ends. `merge`: stderr goes to `out` too."""
        process = subprocess.Popen(
            argv,
            env=env,
            bufsize=0,
            stdin=subprocess.DEVNULL if merge else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            start_new_session=True,
            preexec_fn=leash(),  # noqa: PLW1509 - the agent has one thread
        )
        job = Job(process)
        for pipe, sink in ((process.stdout, job.out), (process.stderr, job.err)):
            if pipe is not None:
                self._selector.register(pipe, selectors.EVENT_READ, (job, sink))
                job.open_pipes += 1
        self._jobs.append(job)
        return job

    def send(self, job: Job, request: bytes) -> None:
        """Give a child a request. One that is dead takes it too; `wait` finds that out."""
        job.doing = ""
        if job.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                write_all(job.process.stdin.fileno(), request)

    def wait(
        self, job: Job, seconds: float = 0, memory_bytes: int = 0, every: float = 0.05, tick: Tick = None
    ) -> Frame:
        """The answer of a child.

        `seconds` and `memory_bytes` (RSS, looked at `every` so many seconds, when `tick` is called too) are limits,
        0: none. Raises AgentError: "crash", "time" or "memory"; the child and what it started are gone then.
        """
        end = time.monotonic() + seconds if seconds else None
        pause = every if memory_bytes or tick else None
        while True:
            frame = self._frame(job)
            if frame is not None:
                return frame
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise self._over(job, "time", f"the model did not answer within {seconds:.3g} s", "")
            if memory_bytes:
                rss = rss_bytes(job.pid)
                if rss is not None and rss > memory_bytes:
                    what = f"{rss} bytes resident, {memory_bytes} allowed"
                    raise self._over(job, "memory", what, "raise the limit or use a smaller model")
            if tick:
                tick()
            self.pump(min((t for t in (left, pause) if t is not None), default=None))

    def sleep(self, seconds: float, every: float, tick: Callable[[], None]) -> None:
        """Do nothing but call `tick` (`every` 0: once) for so long; a host that goes away ends it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            tick()
            self.pump(min(left, every) if every else left)

    def lines(self, job: Job) -> Iterator[str]:
        """What a child writes, line by line, until it ends; its return code is known then."""
        while True:
            head, newline, rest = job.out.partition(b"\n")
            if newline or (head and not job.open_pipes):
                job.out[:] = rest
                yield head.decode(errors="replace").rstrip()
            elif job.open_pipes:
                self.pump()
            else:
                self.end(job, grace=5.0)
                return

    def end(self, job: Job, grace: float = 0.0) -> None:
        """Wait `grace` seconds for a child to end by itself, then kill it and all that it started."""
        if job not in self._jobs:
            return
        self._jobs.remove(job)
        if grace:
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.process.wait(grace)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(job.pid, signal.SIGKILL)
        job.process.wait()
        if job.group:
            cgroup.remove(job.group)
        for pipe in (job.process.stdin, job.process.stdout, job.process.stderr):
            if pipe is not None:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(pipe)
                pipe.close()

    def ended(self, job: Job) -> bool:
        """Whether a child is gone, as far as we have noticed."""
        return job not in self._jobs

    def end_all(self) -> None:
        """No child is left."""
        for job in list(self._jobs):
            self.end(job)

    def _frame(self, job: Job) -> Optional[Frame]:
        try:
            frame = take(job.out)
            while frame is not None and "event" in frame.head:
                job.doing = str(frame.head.get("what", ""))
                frame = take(job.out)
        except ProtocolError as e:
            raise self._over(job, "crash", f"the child does not speak the protocol: {e}", "") from None
        if frame is None and not job.open_pipes:
            self.end(job, grace=2.0)
            raise _died(job)
        return frame

    def _over(self, job: Job, kind: str, what: str, mend: str) -> AgentError:
        self.end(job)
        return AgentError(kind, what, mend)


def _died(job: Job) -> AgentError:
    """Why, as far as it can be known: the kernel counts whom it kills for want of memory and does not say whom."""
    now = oom_kills()
    if job.process.returncode == -signal.SIGKILL and None not in (now, job.oom_kills) and now != job.oom_kills:
        what = "the kernel ran out of memory and killed the child that runs the model"
        return AgentError("memory", what, "use a smaller model, or end other programs of the device")
    mend = "another runtime, fewer threads or a smaller model may do"
    return AgentError("crash", "the child that runs the model " + job.why(), mend)


def write_all(fd: int, data: Union[bytes, memoryview[int]]) -> None:
    """Write all bytes to a pipe, waiting for its reader."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def program() -> Tuple[List[str], Dict[str, str]]:
    """How to start this package once more: arguments after the interpreter, and variables.

    From the archive that it was loaded from, or as a module from the folder that it lies in.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.isfile(home):
        return [home], {}
    paths = [home, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return ["-m", __package__ or "edgelathe_agent"], {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}


def leash() -> Callable[[], None]:
    """What a new process does first: it ends when this one does, and goes first when memory is short."""
    prctl, parent = _load_prctl(), os.getpid()

    def bound() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        with contextlib.suppress(OSError):
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            os.write(fd, _OOM_SCORE)

    return bound


@functools.lru_cache(maxsize=None)
def _load_prctl() -> Callable[..., Any]:
    """The C library's prctl; where there is none, children end by their closed stdin only."""
    try:
        import ctypes

        prctl: Callable[..., Any] = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return lambda *_: 0
    return prctl


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

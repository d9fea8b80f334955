"""The request loop: frames in on stdin, answers out on stdout, in order, one request at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any, Dict, List, Optional

from edgelathe_agent import cgroup, framing
from edgelathe_agent.cas import FULL, Store
from edgelathe_agent.framing import Frame, ProtocolError, TooLargeError
from edgelathe_agent.jobs import GoneError, Job, Jobs, Tick, program, write_all
from edgelathe_agent.patience import Session
from edgelathe_agent.programs import find
from edgelathe_agent.protocol import MAX_REQUEST, PROTOCOL, RUNTIMES, AgentError, check_request
from edgelathe_agent.verbs import HANDLERS

Head = Dict[str, Any]


class Agent:
    """One connection: its store, its children, its sessions."""

    def __init__(self, root: str, identity: str, stdin: int, stdout: int) -> None:
        self.root, self.identity, self._stdout = root, identity, stdout
        self.store = Store(root)
        self.jobs = Jobs(stdin)
        self.sessions: Dict[int, Session] = {}
        self.python = sys.executable
        self.wiped = False
        self.recovered: List[Dict[str, Any]] = []
        self._last_session = 0
        self._id: Optional[int] = None

    def serve(self) -> None:
        """Answer until the host goes. Raises ProtocolError when what it sends is no frame."""
        self._send(_hello(self))
        _tidy(self)
        while not self.wiped:
            self._serve_one(self._next())

    def event(self, what: str) -> None:
        """Tell the host how a long request gets on."""
        self._send({"id": self._id, "event": "progress", "what": what[:500]})

    def child(self) -> Job:
        """A child that knows session.py's requests, in the interpreter that models run in."""
        args, variables = program()
        env = dict(os.environ, **variables)
        if not self.python.startswith(self.root + os.sep):
            env["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing outside the root is written
        return self.jobs.start([self.python, *args, "--child", "--root", self.root], env)

    def ask(
        self, job: Job, head: Head, seconds: float = 0, memory: int = 0, every: float = 0.05, tick: Tick = None
    ) -> Frame:
        """Send a child a request; its good answer, as `answer` gives it."""
        self.jobs.send(job, framing.pack(head))
        return self.answer(job, seconds, memory, every, tick)

    def answer(self, job: Job, seconds: float = 0, memory: int = 0, every: float = 0.05, tick: Tick = None) -> Frame:
        """A child's good answer without its `ok`; its error is raised as it came."""
        frame = self.jobs.wait(job, seconds, memory, every, tick)
        if not frame.head.pop("ok", False):
            raise AgentError(**frame.head["error"])
        return frame

    def ask_session(
        self, head: Head, every: float = 0.05, tick: Tick = None, runs_for: Optional[float] = None
    ) -> Frame:
        """The same for the child of an open session, which is closed when the child died over it.

        `runs_for`: seconds that the model is to run for, without its last call; None: it is not to run.
        """
        number = head["session"]
        session = self.sessions.get(number)
        if session is None:
            raise AgentError("missing", f"no session {number!r}", "open the model again")
        try:
            return self.ask(session.job, head, session.limit(runs_for), session.memory_bytes, every, tick)
        except AgentError:
            if self.jobs.ended(session.job):
                self.end_session(number)
            raise

    def add_session(self, session: Session) -> int:
        """The number of a session whose model its child has loaded."""
        self._last_session += 1
        self.sessions[self._last_session] = session
        return self._last_session

    def end_session(self, number: int) -> None:
        """Its child is gone."""
        session = self.sessions.pop(number, None)
        if session is not None:
            self.jobs.end(session.job)

    def _next(self) -> Frame:
        while True:
            try:
                frame = framing.take(self.jobs.inbox, MAX_REQUEST)
            except TooLargeError as e:
                self._skip(e)
                continue
            if frame is not None:
                return frame
            self.jobs.pump()

    def _skip(self, e: TooLargeError) -> None:
        """Read over a payload that is too large to keep, then say so: the stream stays in step."""
        rest, inbox = e.rest, self.jobs.inbox
        while rest:
            if not inbox:
                self.jobs.pump()
            n = min(rest, len(inbox))
            del inbox[:n]
            rest -= n
        self._fail(e.head.get("id"), AgentError("request", str(e), "send it in smaller pieces"))

    def _serve_one(self, frame: Frame) -> None:
        head = frame.head
        self._id = head.get("id")
        try:
            check_request(head)
            fields, body = HANDLERS[head["do"]](self, head, frame.body)
            self._send({"id": self._id, "ok": True, **fields}, body)
        except AgentError as e:
            self._fail(self._id, e)
        except OSError as e:
            if isinstance(e, BrokenPipeError):
                raise
            full = e.errno in FULL
            mend = "free some space" if full else f"see that {self.root} is writable"
            self._fail(self._id, AgentError("space" if full else "internal", f"{type(e).__name__}: {e}", mend))
        except (GoneError, ProtocolError):
            raise
        except Exception as e:
            import traceback

            traceback.print_exc()
            self._fail(self._id, AgentError("internal", f"{type(e).__name__}: {e}", "report this as a bug"))

    def _fail(self, number: Any, error: AgentError) -> None:
        self._send({"id": number, "ok": False, "error": error.to_json()})

    def _send(self, head: Head, body: bytes = b"") -> None:
        write_all(self._stdout, framing.front(head, len(body)))
        write_all(self._stdout, body)


def main(root: str, identity: str) -> int:
    """Serve stdin and stdout until the host goes; the exit code. No child outlives it."""
    stdout = claim_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on the host's terminal is the host's to handle
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    os.umask(0o077)
    agent = Agent(root, identity, 0, stdout)
    try:
        agent.serve()
    except (GoneError, BrokenPipeError):
        return 0
    except ProtocolError as e:
        with contextlib.suppress(OSError):
            agent._fail(None, AgentError("request", str(e)))
        sys.stderr.write(f"edgelathe agent: {e}\n")
        return 1
    finally:
        agent.jobs.end_all()
    return 0


def claim_stdout() -> int:
    """A descriptor for frames only: what libraries print on stdout goes to stderr from now on."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    return stdout


def _hello(agent: Agent) -> Head:
    there = [
        name
        for name, row in RUNTIMES.items()
        if any(os.path.isdir(os.path.join(p, row.package)) for p in sys.path) or (row.program and find(row.program))
    ]
    return {
        "hello": 1, "protocol": PROTOCOL, "agent": agent.identity, "pid": os.getpid(),
        "python": ".".join(map(str, sys.version_info[:3])), "machine": os.uname().machine,
        "root": agent.root, "runtimes": there,
    }  # fmt: skip


def _tidy(agent: Agent) -> None:
    if os.path.isdir(os.path.join(agent.root, "tune")):
        from edgelathe_agent import tune

        with contextlib.suppress(OSError):  # of another login: it can be asked all the same
            agent.recovered, _ = tune.recover("/", agent.root)
    archives = program()[0][0]
    if os.path.dirname(archives) == os.path.join(agent.root, "agent"):
        from edgelathe_agent.tidy import old_archives

        old_archives(archives)
    cgroup.sweep("/")

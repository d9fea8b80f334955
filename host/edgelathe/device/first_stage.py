"""The program that starts the agent on a device, sent as text.

It asks for the agent's archive only where that is missing: it says one line, `EDGELATHE SEND` or
`EDGELATHE FAIL reason`, or nothing and becomes the agent. It runs on Python 3.8 before anything of edgelathe is there,
so it uses the standard library alone. Arguments: root, sha256 and size of the archive. A root that holds other files
and was never edgelathe's is refused, since uninstalling clears it.
"""
# os.path and % because of Python 3.8 on slow cards, where pathlib takes as long as all the rest:
# ruff: noqa: PTH100, PTH103, PTH105, PTH108, PTH110, PTH111, PTH118, PTH120, PTH123, PTH208, UP031

import contextlib
import fcntl
import hashlib
import os
import runpy
import sys

MARKER = os.path.join("agent", ".edgelathe")


def say(text: str) -> None:
    """One line to the host."""
    os.write(1, ("EDGELATHE %s\n" % " ".join(text.split())).encode())


def own(root: str) -> None:
    """Make the root and mark it; refuse a folder that holds other things."""
    os.makedirs(root, 0o700, exist_ok=True)
    marker = os.path.join(root, MARKER)
    if not os.path.exists(marker):
        if os.listdir(root):
            raise OSError(0, "it holds other files")
        os.makedirs(os.path.dirname(marker), 0o700)
        open(marker, "w").close()


def hold(path: str) -> None:
    """Lock the file, shared, until this process ends: agents of other versions remove archives that nobody holds."""
    with contextlib.suppress(OSError):  # it is not there, or on a file system without locks
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_SH)


def whole(path: str, sha: str) -> bool:
    """Whether the file is there with the right bytes."""
    try:
        with open(path, "rb") as f:
            return hashlib.sha256(f.read()).hexdigest() == sha
    except OSError:
        return False


def receive(path: str, sha: str, size: int) -> None:
    """The archive from standard input, under its name only when its hash fits. The agent clears older ones away."""
    say("SEND")
    data = b""
    while len(data) < size:
        more = os.read(0, min(65536, size - len(data)))  # not beyond the archive: what follows is the agent's
        if not more:
            raise OSError(0, "the agent's archive broke off")
        data += more
    if hashlib.sha256(data).hexdigest() != sha:
        raise OSError(0, "the agent's archive arrived damaged")
    part = "%s.%d" % (path, os.getpid())
    try:
        with open(part, "wb") as f:
            f.write(data)
        os.replace(part, path)
    except OSError:
        if os.path.exists(part):
            os.unlink(part)
        raise


def start() -> None:
    """Get the archive in place and become the agent."""
    root, sha, size = os.path.expanduser(os.path.expandvars(sys.argv[1])), sys.argv[2], int(sys.argv[3])
    root = os.path.abspath(root)
    path = os.path.join(root, "agent", sha + ".pyz")
    try:
        own(root)
        hold(path)
        if not whole(path, sha):
            receive(path, sha, size)
            hold(path)
    except OSError as e:
        say("FAIL %s: %s" % (root, e.strerror or e))
        sys.exit(1)
    sys.argv = [path, "--root", root, "--agent", sha]
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    start()

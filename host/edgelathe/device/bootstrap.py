"""Starting the agent over a transport, in one round trip when its archive is there already."""

from __future__ import annotations

import base64
import re
import sys
import time
import zlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from edgelathe.core.errors import DeviceError
from edgelathe.device.errors import NoPython, lost
from edgelathe.device.payload import payload
from edgelathe_agent.framing import MAGIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgelathe.device.transport import Channel, Transport

#: Where the agent lives on a device. Not the folder of the host's own data: a device may be a host too.
DEFAULT_ROOT = "~/.local/share/edgelathe-agent"
#: Tried in this order: the host's own version first, since the host's versions of the runtimes fit it.
PYTHONS = tuple(dict.fromkeys(
    [f"python3.{sys.version_info.minor}", *(f"python3.{minor}" for minor in range(13, 7, -1)), "python3", "python"]
))  # fmt: skip
START_SECONDS = 30.0
_WORD = b"EDGELATHE "

#: Finds a Python and runs the first stage on it: $1 root, $2 whether the root's own comes first, $3 program, $4 hash,
#: $5 size, then the Pythons to try. One line without ' \ ! so that any login shell hands it to sh as it is.
_FIND = (
    "r=$1; case $r in [~]|[~]/*) r=$HOME${r#?};; [$]HOME*) r=$HOME${r#?????};; esac; "
    'v=$2; c=$3; h=$4; z=$5; shift 5; [ "$v" = 1 ] && set -- "$r/venv/bin/python" "$@"; '
    "for p; do case $p in [~]/*) p=$HOME${p#?};; [$]HOME*) p=$HOME${p#?????};; esac; "
    'command -v "$p" >/dev/null 2>&1 || continue; '
    '"$p" -SEc "import sys; sys.exit(sys.version_info < (3, 8))" </dev/null >/dev/null 2>&1 || continue; '
    'exec "$p" -c "$c" "$r" "$h" "$z"; done; echo EDGELATHE PYTHON'
)  # fmt: skip


class Started(NamedTuple):
    """A running agent: its channel, and the bytes of its first frame that were read already."""

    channel: Channel
    begun: bytes


@cache
def program() -> str:
    """The first stage as an argument for `python -c`, packed: no quotes, one line."""
    source = files("edgelathe.device").joinpath("first_stage.py").read_text()
    packed = base64.b64encode(zlib.compress(re.sub(r'"""[\s\S]*?"""', "None", source).encode(), 9)).decode()
    path = "sys.path[:]=[p for p in sys.path if p]"  # a file in the home folder must not stand in for a module
    return f'import sys;{path};import base64,zlib;exec(zlib.decompress(base64.b64decode("{packed}")))'


def command(root: str, python: str | None, *, local: bool, venv: bool = True) -> list[str]:
    """The argument vector that starts the agent. `venv`: the environment under the root comes first."""
    agent = payload()
    tail = [root, agent.sha256, str(len(agent.data))]
    if local:
        return [python or sys.executable, "-c", program(), *tail]
    pythons = [python] if python else PYTHONS
    return ["/bin/sh", "-c", _FIND, "sh", tail[0], str(int(venv)), program(), *tail[1:], *pythons]


def start(
    transport: Transport, argv: Sequence[str], python: str | None = None, limit: float = START_SECONDS
) -> Started:
    """Start the agent; its archive is sent where the device asks for it.

    Raises NoPython, ConnectionLost, and DeviceError for a shell that prints before the agent speaks, a root that
    cannot be used, and silence for `limit` seconds.
    """
    channel = transport.start(argv)
    try:
        return Started(channel, _listen(transport.name, channel, python, limit))
    except BaseException:
        channel.close()
        raise


def _listen(device: str, channel: Channel, python: str | None, limit: float) -> bytes:
    """Read up to the first bytes of a frame, and answer what the first stage asks for."""
    heard, deadline = b"", time.monotonic() + limit
    while len(heard) < len(MAGIC) or not heard.startswith(MAGIC):
        if heard.startswith(_WORD) and b"\n" in heard:
            line, _, heard = heard.partition(b"\n")
            _obey(device, channel, line[len(_WORD) :].decode(errors="replace"), python)
            continue
        if not any(word.startswith(heard[: len(word)]) for word in (MAGIC, _WORD)):
            raise _noise(device, heard)
        try:
            more = channel.read(1 << 16, max(0.1, deadline - time.monotonic()))
        except TimeoutError:
            raise DeviceError(
                device, f"the agent says nothing for {limit:.0f} s", f"run `edgelathe device doctor {device}`"
            ) from None
        if not more:
            raise _ended(device, channel)
        heard += more
    return heard


def _obey(device: str, channel: Channel, line: str, python: str | None) -> None:
    verb, _, rest = line.partition(" ")
    if verb == "SEND":
        channel.write(payload().data)
    elif verb == "PYTHON":
        if python:
            raise NoPython(device, f"{python} is no Python 3.8 or newer there", "name another with --python PATH")
        raise NoPython(device, "no Python 3.8 or newer there", "install python3, or name one with --python PATH")
    else:
        raise DeviceError(
            device, f"the agent cannot start in {rest}", "choose an empty folder that may be written to with --root"
        )


def _noise(device: str, heard: bytes) -> DeviceError:
    first = heard.decode(errors="replace").strip().splitlines()
    shown = (first[0] if first else "")[:60]
    return DeviceError(
        device,
        f"its login shell prints '{shown}' before the agent can speak",
        "print only in interactive shells, as in `case $- in *i*) ...; esac` in ~/.bashrc there",
    )


def _ended(device: str, channel: Channel) -> DeviceError:
    code, words = channel.wait(2.0), channel.last_words().splitlines()
    if code is None and not words:
        return lost(device)
    said = words[-1][:200] if words else f"exit status {code}"
    return DeviceError(device, f"the agent did not start: {said}", f"run `edgelathe device doctor {device}`")

"""What goes wrong with a device, and one table that translates foreign exceptions into it.

The classes are named by what happened, as `raise` reads: N818 wants `Error` behind each.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgelathe.core.errors import DeviceError
from edgelathe_agent.framing import ProtocolError
from edgelathe_agent.protocol import AgentError


class ConnectionLost(DeviceError):  # noqa: N818
    """The link or the agent at its other end went away; what was measured before it stays valid."""


class UnknownHostKey(DeviceError):  # noqa: N818
    """Nobody vouched for the key of this host yet."""


class ChangedHostKey(DeviceError):  # noqa: N818
    """The host shows another key than the one that is known for it."""


class NoPython(DeviceError):  # noqa: N818
    """The device has no Python that can run the agent."""


class AgentRefusal(DeviceError):  # noqa: N818
    """The agent answered that it cannot; `kind` is one of the protocol's KINDS. The connection is sound."""

    def __init__(self, where: object, what: str, mend: str, kind: str) -> None:
        super().__init__(where, what, mend)
        self.kind = kind


class ModelFailure(AgentRefusal):
    """The device could not run this model as asked; other models still can be.

    `kind` is `model` (refused by the runtime), `crash`, `memory`, `time`, `missing` (no such runtime), or `provider`
    (another provider than the required one ran it).
    """


def lost(device: str, what: str = "the connection was lost") -> ConnectionLost:
    """The error of a link that broke in the middle."""
    return ConnectionLost(
        device, what, "check power and network, then run the command again (a fit goes on with --resume)"
    )


#: Kinds that concern one model only.
MODEL_KINDS = frozenset({"model", "crash", "memory", "time", "missing"})

_AGENT_MENDS = {
    "request": "run `edgelathe device install {device}` again",
    "missing": "run the command again",
    "corrupt": "run the command again; if it repeats, check the device's storage",
    "space": "free some space there or choose another folder with --root",
    "model": "check the model with `edgelathe inspect`, or choose another runtime",
    "crash": "choose another runtime, provider or recipe",
    "memory": "use a smaller model or fewer threads",
    "time": "does it hang? use a smaller model, or allow more with --call-limit",
    "install": "see the lines above it on the device, or give wheels with --wheels DIR",
    "internal": "please report this",
}


def from_agent(device: str, error: AgentError) -> AgentRefusal:
    """The answer `ok: false` of an agent as the error of its device."""
    mend = error.mend or _AGENT_MENDS.get(error.kind, "run `edgelathe device doctor {device}`").format(device=device)
    kind = ModelFailure if error.kind in MODEL_KINDS else AgentRefusal
    return kind(device, error.what, mend, error.kind)


_SILENT = ("no answer from {address}", "check power, network and firewall, then `edgelathe device doctor {device}`")

#: Operating system errors: what they mean for a device, and the mend.
_ERRNO: dict[int, tuple[str, str]] = {
    errno.ECONNREFUSED: (
        "connection refused at {address}",
        "is the ssh server running there, and is the port right?",
    ),
    errno.EHOSTUNREACH: ("no route to {address}", "check the network and the address"),
    errno.ENETUNREACH: ("no route to {address}", "check the network and the address"),
    errno.ETIMEDOUT: _SILENT,
    errno.EACCES: ("not allowed to connect to {address}", "check the firewall of this machine"),
}  # fmt: skip

_GONE = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN, errno.EBADF, errno.ESHUTDOWN})

#: Exceptions by class name along their inheritance, so that paramiko is not imported to translate an error.
_NAMES: dict[str, tuple[str, str]] = {
    "PasswordRequiredException": (
        "the key {error} is protected by a passphrase",
        "add it to the ssh agent with `ssh-add`",
    ),
    "BadAuthenticationType": (
        "login as {user} with a key is not allowed, only {error}",
        "allow PubkeyAuthentication in its sshd_config",
    ),
    "AuthenticationException": (
        "login as {user} refused: {error}",
        "run `ssh-copy-id {user}@{host}`, or name the right user and IdentityFile in the ssh config",
    ),
    "IncompatiblePeer": (
        "no common ssh algorithm with {address}: {error}",
        "update the ssh server of the device",
    ),
    "ChannelException": (
        "the ssh server of {address} opened no channel: {error}",
        "allow TCP forwarding and sessions in its sshd_config",
    ),
    "ConfigParseError": ("the ssh config cannot be read: {error}", "mend it or give another with --ssh-config FILE"),
    "gaierror": ("the name {host} is unknown: {error}", "check the spelling, or name its HostName in the ssh config"),
    "timeout": _SILENT,
    "TimeoutError": _SILENT,
    "ProtocolError": ("the agent's answer is {error}", "let the shell's start-up files print nothing there"),
}  # fmt: skip

_BANNER = (
    "{address} does not answer like an ssh server: {error}",
    "check the port; another service may be listening there",
)


def translate(error: BaseException, *, device: str, host: str = "", port: int = 22, user: str = "") -> DeviceError:
    """A socket, paramiko or protocol exception as a DeviceError that says what is wrong and how to mend it.

    Errors that are DeviceErrors already are returned as they are.
    """
    if isinstance(error, DeviceError):
        return error
    if isinstance(error, AgentError):
        return from_agent(device, error)
    facts = {"device": device, "host": host, "user": user, "address": f"{host}:{port}" if host else device,
             "error": _words(error)}  # fmt: skip
    nested = getattr(error, "errors", None)  # paramiko's NoValidConnectionsError holds one error per address
    if isinstance(nested, dict) and nested:
        error = next(iter(nested.values()))
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and number in _GONE:
        return lost(device)
    row = None
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and number in _ERRNO:
        row = _ERRNO[number]
    elif "banner" in str(error) or "Indecipherable" in str(error):
        row = _BANNER
    else:
        row = next((_NAMES[c.__name__] for c in type(error).__mro__ if c.__name__ in _NAMES), None)
    if row is None and isinstance(error, EOFError):
        return lost(device)
    if row is None:
        row = ("{error}", "run `edgelathe device doctor {device}`")
    what, mend = (text.format(**facts) for text in row)
    return DeviceError(device, what, mend)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    types = getattr(error, "allowed_types", None)
    if types:
        return ", ".join(types)
    return str(error) or type(error).__name__


@contextmanager
def translated(device: str, *, host: str = "", port: int = 22, user: str = "") -> Iterator[None]:
    """Translate what a block of foreign calls raises; KeyboardInterrupt and the like pass through."""
    try:
        yield
    except (OSError, EOFError, ProtocolError) as e:
        raise translate(e, device=device, host=host, port=port, user=user) from e
    except Exception as e:
        if type(e).__module__.startswith("paramiko"):
            raise translate(e, device=device, host=host, port=port, user=user) from e
        raise


Progress = Callable[[str], None]
"""Called with one line of what a long request is doing."""

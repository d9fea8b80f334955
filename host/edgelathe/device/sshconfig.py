"""The user's ssh config: from what the user named to where and how to connect."""

from __future__ import annotations

import getpass
import glob
import os
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONNECT_SECONDS = 10.0
#: Keys that OpenSSH tries where the config names none.
DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
MAX_DEPTH = 8


@dataclass(frozen=True)
class Endpoint:
    """One ssh server and how to log in there.

    `alias` is the name looked up in the ssh config; `known_hosts` are the files of UserKnownHostsFile, empty where it
    names none; `compress`: what is sent is deflated on the way; `jumps` are endpoints to pass through first, in order;
    `proxy_command` a program that is the link.
    """

    alias: str
    host: str
    port: int
    user: str
    keys: tuple[Path, ...] = ()
    keys_only: bool = False
    known_hosts: tuple[Path, ...] = ()
    host_key_alias: str | None = None
    connect_seconds: float = CONNECT_SECONDS
    compress: bool = False
    jumps: tuple[Endpoint, ...] = ()
    proxy_command: str | None = None

    @property
    def address(self) -> str:
        """`host:port` for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def key_name(self) -> str:
        """The name that known_hosts files know this server by."""
        if self.host_key_alias:
            return self.host_key_alias.lower()
        host = self.host.lower()
        return host if self.port == 22 else f"[{host}]:{self.port}"


@dataclass(frozen=True)
class Address:
    """What a target says by itself; None where the ssh config or a default decides."""

    host: str
    user: str | None = None
    port: int | None = None


def parse(text: str) -> Address:
    """`ssh://[user@]host[:port]`, `[user@]host[:port]` or a host of the ssh config. Raises UserError."""
    mend = "the form is ssh://[user@]host[:port]"
    url = text if "://" in text else f"ssh://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise UserError(text, str(e), mend) from None
    if parts.scheme != "ssh":
        raise UserError(text, f"'{parts.scheme}://' is no way to reach a device", mend)
    host = parts.netloc.rpartition("@")[2]
    host = host[1 : host.index("]")] if host.startswith("[") and "]" in host else host.partition(":")[0]
    if not host or host.startswith("-") or any(c.isspace() for c in text):
        raise UserError(text, "no host in it", mend)
    if parts.password is not None:
        raise UserError(text, "a password in an address is not used", "log in with a key; " + mend)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UserError(text, "more than a host in it", mend)
    return Address(host, parts.username or None, port)


class SshConfig:
    """The ssh config files that count: FILE alone where one is given, else the user's and the system's."""

    def __init__(self, file: Path | None = None) -> None:
        named = file or (Path(os.environ["EDGELATHE_SSH_CONFIG"]) if os.environ.get("EDGELATHE_SSH_CONFIG") else None)
        if named is not None and not named.expanduser().is_file():
            raise UserError(named, "no such ssh config", "name another with --ssh-config FILE or EDGELATHE_SSH_CONFIG")
        self.files = (
            [named.expanduser()] if named else [Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config")]
        )
        self._config = _read(self.files)

    def hosts(self) -> list[str]:
        """Names that the config has a section for, patterns left out."""
        return sorted(h for h in self._config.get_hostnames() if not any(c in h for c in "*?!"))

    def knows(self, name: str) -> bool:
        """Whether a section speaks of this host: by name or by a pattern other than `*`."""
        import fnmatch

        patterns = (h for h in self._config.get_hostnames() if h != "*" and not h.startswith("!"))
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    def endpoint(self, text: str, depth: int = 0) -> Endpoint:
        """Where `text` leads. Raises UserError for a malformed address, a bad entry, or jumps that go in a circle."""
        if depth > MAX_DEPTH:
            raise UserError(self.files[0], f"the ProxyJump of {text} goes in a circle", "mend the ssh config")
        asked = parse(text)
        entry = self._lookup(asked.host)
        port = asked.port or int(self._number(entry, "port", 22, asked.host))
        host = entry.get("hostname", asked.host)
        user = asked.user or entry.get("user") or getpass.getuser()
        jump = entry.get("proxyjump") or "none"
        command = entry.get("proxycommand")
        if command:
            command = command.replace("%h", host).replace("%p", str(port)).replace("%r", user)
        jumps: tuple[Endpoint, ...] = ()
        if jump.lower() != "none":
            first, *rest = (j.strip() for j in jump.split(","))
            head = self.endpoint(
                first, depth + 1
            )  # the first hop may need jumps itself, the others are reached from it
            jumps = (
                *head.jumps,
                replace(head, jumps=()),
                *(replace(self.endpoint(j, depth + 1), jumps=()) for j in rest),
            )
        return Endpoint(
            alias=asked.host, host=host, port=port, user=user,
            keys=tuple(_paths(entry.get("identityfile", [*DEFAULT_KEYS]), host)),
            keys_only=entry.get("identitiesonly", "no").lower() == "yes",
            known_hosts=tuple(_paths(shlex.split(entry.get("userknownhostsfile", "")), host)),
            host_key_alias=entry.get("hostkeyalias"),
            connect_seconds=self._number(entry, "connecttimeout", CONNECT_SECONDS, asked.host),
            compress=entry.get("compression", "no").lower() == "yes",
            jumps=jumps, proxy_command=command if not jumps else None,
        )  # fmt: skip

    def _lookup(self, host: str) -> Mapping[str, Any]:
        import paramiko

        try:
            entry: Mapping[str, Any] = self._config.lookup(host)
        except (paramiko.SSHException, ImportError) as e:
            raise UserError(self.files[0], f"the entry for {host} cannot be used: {e}", "mend the ssh config") from e
        return entry

    def _number(self, entry: Mapping[str, Any], key: str, default: float, host: str) -> float:
        try:
            return float(entry.get(key, default))
        except ValueError:
            raise UserError(self.files[0], f"{key} of {host} is {entry[key]!r}", "write a number there") from None


def _read(files: list[Path]) -> Any:
    import paramiko

    lines = [line for file in files if file.is_file() for line in _lines(file)]
    try:
        return paramiko.SSHConfig.from_text("\n".join(lines))
    except (paramiko.ConfigParseError, ValueError) as e:
        raise UserError(files[0], f"not an ssh config: {e}", "mend that line") from e


def _lines(file: Path, depth: int = 0) -> Iterator[str]:
    """The lines of a config with what its `Include` lines name in their place."""
    try:
        text = file.read_text(errors="replace")
    except OSError as e:
        raise UserError(file, e.strerror or str(e), "make it readable or give another with --ssh-config FILE") from e
    for line in text.splitlines():
        include = re.fullmatch(r"\s*include(?:\s*=\s*|\s+)(.+)", line, re.IGNORECASE)
        if not include:
            yield line
        elif depth < MAX_DEPTH:
            home = Path("/etc/ssh") if file.is_relative_to("/etc/ssh") else Path("~/.ssh").expanduser()
            for pattern in shlex.split(include[1]):
                for found in sorted(glob.glob(str(home / Path(pattern).expanduser()))):  # noqa: PTH207  # absolute too
                    yield from _lines(Path(found), depth + 1)


def _paths(names: list[str], host: str) -> Iterator[Path]:
    for name in names:
        if name.lower() != "none":
            yield Path(name.replace("%d", "~").replace("%h", host)).expanduser()

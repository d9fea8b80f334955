"""Who vouches for a host key: the known_hosts files (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT), strictly."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgelathe.core.errors import DeviceError, UserError
from edgelathe.core.files import config_dir
from edgelathe.device.errors import ChangedHostKey, UnknownHostKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgelathe.device.sshconfig import Endpoint

USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


@dataclass(frozen=True)
class HostKey:
    """A public key as a server shows it: its type (`ssh-ed25519`, ...) and its bytes."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """`SHA256:...`, as `ssh-keygen -l` prints it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


@dataclass(frozen=True)
class Known:
    """A line of a known_hosts file that speaks of a host."""

    file: Path
    line: int
    marker: str
    key: HostKey

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"


def own_file() -> Path:
    """edgelathe's own known_hosts."""
    return config_dir() / "known_hosts"


def files_of(endpoint: Endpoint) -> tuple[Path, ...]:
    """Every file that may vouch for this endpoint's key."""
    user = endpoint.known_hosts or tuple(Path(f).expanduser() for f in USER_FILES[:2])
    system = tuple(Path(f) for f in USER_FILES[2:])
    return (*user, *system, own_file())


def lines_for(name: str, files: Sequence[Path]) -> list[Known]:
    """The lines that speak of host `name` (as in `Endpoint.key_name`); certificate authorities are left out."""
    return [known for file in files for known in _read(file, name) if known.marker != "@cert-authority"]


def check(endpoint: Endpoint, key: HostKey, device: str, fingerprint: str | None = None) -> None:
    """Raises unless a known_hosts file, or the registered `fingerprint`, vouches for exactly this key.

    A host that is known by another key only is a ChangedHostKey, whatever the fingerprint says.
    """
    known = lines_for(endpoint.key_name, files_of(endpoint))
    for entry in known:
        if entry.marker == "@revoked" and entry.key == key:
            raise ChangedHostKey(
                device, f"the host key {key.fingerprint} of {endpoint.address} is revoked at {entry.place}",
                "do not connect; ask who runs the device",
            )  # fmt: skip
    good = [entry for entry in known if not entry.marker]
    if any(entry.key == key for entry in good):
        return
    if good:
        old = next((e for e in good if e.key.type == key.type), good[0])
        raise ChangedHostKey(
            device,
            f"the host key of {endpoint.address} changed: it shows {key.type} {key.fingerprint}, known is "
            f"{old.key.type} {old.key.fingerprint} ({old.place})",
            f"if the device was set up anew, run `ssh-keygen -R '{endpoint.key_name}' -f {old.file}` and add it again; "
            "else someone stands between",
        )
    if fingerprint is None:
        raise UnknownHostKey(
            device,
            f"the host key of {endpoint.address} is not known: {key.type} {key.fingerprint}",
            "read it on the device with `ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub`, then "
            f"`edgelathe device add NAME ssh://{endpoint.alias} --fingerprint SHA256:...`",
        )
    if normalized(fingerprint) != key.fingerprint:
        raise wrong_fingerprint(endpoint, key, device, fingerprint)


def wrong_fingerprint(endpoint: Endpoint, key: HostKey, device: str, fingerprint: str) -> ChangedHostKey:
    """The error of a key that is not the one that the user announced."""
    return ChangedHostKey(
        device,
        f"the host key of {endpoint.address} is {key.type} {key.fingerprint}, not {fingerprint}",
        "compare it with `ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub` on the device",
    )


def normalized(fingerprint: str) -> str:
    """`SHA256:...` without padding. Raises UserError for anything else."""
    kind, _, value = fingerprint.partition(":")
    try:
        size = len(base64.b64decode(value.rstrip("=") + "=", validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if kind.upper() != "SHA256" or size != hashlib.sha256().digest_size:
        raise UserError(
            "--fingerprint",
            f"'{fingerprint}' is not a SHA256 fingerprint",
            "write it as `ssh-keygen -l` prints it, SHA256:...",
        )
    return "SHA256:" + value.rstrip("=")


def known_types(endpoint: Endpoint) -> tuple[str, ...]:
    """Key types that are known for this endpoint, so that the server can be asked for one of them first."""
    return tuple(dict.fromkeys(e.key.type for e in lines_for(endpoint.key_name, files_of(endpoint)) if not e.marker))


def accept(endpoint: Endpoint, key: HostKey) -> Path:
    """Append the key to the config's first UserKnownHostsFile, else to edgelathe's own file, and tell where."""
    file = endpoint.known_hosts[0] if endpoint.known_hosts else own_file()
    line = f"{endpoint.key_name} {key.type} {base64.b64encode(key.blob).decode()}\n"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole = not file.exists() or not file.stat().st_size or file.read_bytes().endswith(b"\n")
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "w") as out:  # one write, so that two commands at once do not mix their lines
            out.write(line if whole else "\n" + line)
    except OSError as e:
        raise DeviceError(file, f"the host key cannot be kept: {e.strerror}", "make the file writable") from e
    return file


def _read(file: Path, name: str) -> Iterator[Known]:
    try:
        text = file.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as e:
        raise DeviceError(file, f"known host keys cannot be read: {e.strerror}", "make the file readable") from e
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) < 3 or fields[0].startswith("#") or not _speaks_of(fields[0], name):
            continue
        try:
            yield Known(file, number, marker, HostKey(fields[1], base64.b64decode(fields[2], validate=True)))
        except (binascii.Error, ValueError):
            continue  # as ssh does: a broken line vouches for nobody


def _speaks_of(hosts: str, name: str) -> bool:
    found = False
    for pattern in hosts.split(","):
        if pattern.startswith("|1|"):
            found = found or _hashed(pattern, name)
        elif pattern.startswith("!"):
            if _match(name, pattern[1:]):
                return False
        else:
            found = found or _match(name, pattern)
    return found


def _match(name: str, pattern: str) -> bool:
    # ssh knows * and ? only; the brackets of [host]:port are themselves
    return fnmatch.fnmatchcase(name, pattern.lower().replace("[", "[[]"))


def _hashed(pattern: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in pattern[3:].split("|", 1))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)

"""A real sshd on a loopback port with its own keys, configuration and known_hosts; nothing of the user's is touched."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Sshd:
    """A running server. `config` is an ssh config in which it is called `name`."""

    name: str
    folder: Path
    port: int
    fingerprint: str
    process: subprocess.Popen

    @property
    def user(self) -> str:
        return getpass.getuser()

    @property
    def url(self) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def key(self) -> Path:
        return self.folder / "user"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def host_line(self) -> str:
        """The line of a known_hosts file that vouches for it."""
        kind, key = (self.folder / "host.pub").read_text().split()[:2]
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"

    def trust(self) -> None:
        """Vouch for it in its own known_hosts."""
        self.known_hosts.write_text(self.host_line())

    def section(self, *lines: str) -> str:
        """Its section of an ssh config."""
        own = [
            "HostName 127.0.0.1", f"Port {self.port}", f"User {self.user}", f"IdentityFile {self.key}",
            "IdentitiesOnly yes",
            f"UserKnownHostsFile {self.known_hosts}", *lines,
        ]  # fmt: skip
        return f"Host {self.name}\n" + "".join(f"  {line}\n" for line in own)

    def configure(self, *lines: str) -> Path:
        """Write `config` anew, with these lines in its section."""
        self.config.write_text(self.section(*lines))
        return self.config

    def cut(self) -> None:
        """Kill every connection, as a cable that is pulled would."""
        for pid in children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def connections(self) -> int:
        """How many connections it serves."""
        return len(children(self.process.pid))


def available() -> bool:
    """Whether an sshd can be started here."""
    return _sshd() is not None and shutil.which("ssh-keygen") is not None


@contextlib.contextmanager
def sshd(folder: Path, name: str = "board", options: str = "") -> Iterator[Sshd]:
    """Start an sshd with `options` (lines of its config) in a new folder; `trust` is up to the caller."""
    folder.mkdir(parents=True)
    for key in ("host", "user"):
        keygen("-t", "ed25519", "-N", "", "-f", str(folder / key))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile {folder}/pid\n"
        f"Subsystem sftp internal-sftp\n{options}\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([str(_sshd()), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    server = Sshd(name, folder, port, fingerprint(folder / "host.pub"), process)
    server.configure()
    try:
        _wait(port, process)
        yield server
    finally:
        server.cut()
        process.terminate()
        process.wait()


def fingerprint(public: Path) -> str:
    """As ssh-keygen prints it."""
    return keygen("-l", "-f", str(public)).split()[1]


def keygen(*args: str) -> str:
    return subprocess.run(["ssh-keygen", "-q", *args], check=True, capture_output=True, text=True).stdout


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def running(text: str) -> list[int]:
    """Processes whose command line has `text` in it."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text.encode() in line.read_bytes():
                found.append(int(line.parent.name))
    return found


def gone(text: str, seconds: float = 60.0) -> bool:
    """Whether every process with `text` on its command line ends within `seconds`."""
    end = time.monotonic() + seconds
    while running(text):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _wait(port: int, process: subprocess.Popen) -> None:
    for _ in range(1200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError("sshd does not start")


def _sshd() -> str | None:
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

"""An Arm device: boot, cut its power, set its temperature."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support import sshd
from support.aarch64 import made_up

CPU = "cortex-a72"
QEMU = "qemu-aarch64-static"
_HERE = Path(__file__).parent
_UNSHARE = ("unshare", "-Urmupf")
#: What boot.sh needs of the kernel: binfmt_misc in a user namespace (Linux 6.7), proc and overlay there.
_TRY = (
    "mount --make-rprivate / && mount -t binfmt_misc b /proc/sys/fs/binfmt_misc"
    " && test -e /proc/sys/fs/binfmt_misc/register && mkdir lower upper work all"
    " && mount -t overlay o -o lowerdir=lower,upperdir=upper,workdir=work,userxattr all"
    " && mkdir all/proc && mount -t proc proc all/proc"
)


@dataclass
class Arm(sshd.Sshd):
    """A running device. `sys` is its /sys, `disk` the size of a disk in memory ("" for one on the real disk)."""

    root: Path = field(default=Path())
    disk: str = ""

    @property
    def user(self) -> str:
        return "edge"

    @property
    def sys(self) -> Path:
        return self.folder / "sys"

    @property
    def log(self) -> str:
        """What booting and sshd said."""
        return (self.folder / "log").read_text()

    def boot(self) -> None:
        """Switch it on; what it wrote before is still there. Raises RuntimeError where it does not come up."""
        flags = "FP" if (self.folder / "host" / "cpu").exists() else "F"
        env = {**os.environ, "ROOT": str(self.root), "STATE": str(self.folder), "DISK": self.disk, "FLAGS": flags}
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [*_UNSHARE, "/bin/sh", str(_HERE / "boot.sh")],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=env,
            )  # fmt: skip
        try:
            _wait(self.port, self.process)
        except RuntimeError:
            self.cut_power()
            raise RuntimeError(f"the Arm device does not start:\n{self.log}") from None

    def cut_power(self) -> None:
        """Everything on it is gone at once: SIGKILL to its pid 1, which ends after all others."""
        for pid in sshd.children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(120)
        assert self.process.stdin
        self.process.stdin.close()

    def cut(self) -> None:
        """Kill every connection, as a cable that is pulled would."""
        for pid in self._served():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def connections(self) -> int:
        """How many connections it serves."""
        return sum("[priv]" in _cmdline(pid) for pid in self._served())

    def processes(self, *words: str) -> list[int]:
        """Processes on it, by their pids outside, with all of `words` on their command lines."""
        found, queue = [], sshd.children(self.process.pid)
        while queue:
            pid = queue.pop()
            queue += sshd.children(pid)
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                if all(w.encode() in line for w in words):
                    found.append(pid)
        return found

    def ssh(self, *words: str, code: int = 0, limit: float = 60) -> str:
        """What a command prints there, run by OpenSSH's own client."""
        argv = ["ssh", "-F", str(self.config), "-o", "BatchMode=yes", self.name, *words]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=limit, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == code, f"exit {done.returncode}: {words}\n{done.stderr}"
        return done.stdout

    def set(self, name: str, value: object) -> None:
        """Write a file of its /sys."""
        (self.sys / name).write_text(f"{value}\n")

    @property
    def governor(self) -> str:
        """Of its processors' clock."""
        return (self.sys / "devices/system/cpu/cpufreq/policy0/scaling_governor").read_text().strip()

    def heat(self, celsius: float) -> None:
        """Set its temperature."""
        self.set("class/thermal/thermal_zone0/temp", round(1000 * celsius))

    def clock(self, khz: int) -> None:
        """Set the clock of its processors."""
        self.set("devices/system/cpu/cpufreq/policy0/scaling_cur_freq", khz)

    def throttle(self, state: int) -> None:
        """Let the kernel's cooling hold its clock down, 0: not."""
        self.set("class/thermal/cooling_device0/cur_state", state)

    def cool(self) -> None:
        """Temperature, clock and cooling as after booting."""
        self.heat(made_up.CELSIUS)
        self.clock(made_up.KHZ)
        self.throttle(0)

    def _served(self) -> list[int]:
        """Of each connection two processes: one that is trusted and one for the user, both hold the socket."""
        return [pid for pid in self.processes("sshd") if " -D " not in _cmdline(pid)]


@contextlib.contextmanager
def device(folder: Path, root: Path, name: str = "arm", disk: str = "") -> Iterator[Arm]:
    """Boot a device with its state in `folder`, which is new, over the built `root`; it is trusted already."""
    prepare(folder)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    _configure(folder / "host", port)
    arm = Arm(name, folder, port, sshd.fingerprint(folder / "host.pub"), subprocess.Popen(["true"]), root, disk)
    arm.process.wait()
    arm.configure()
    arm.trust()
    try:
        arm.boot()
        yield arm
    finally:
        arm.cut_power()
        _remove(folder)


def why_not(folder: Path) -> str:
    """Why no such device runs here, "" where it can; tried in `folder`."""
    for program in (QEMU, "unshare", "ssh", "ssh-keygen", "ldd"):
        if not shutil.which(program):
            return f"{program} is not here, run `make system-deps`"
    if not sshd.available():
        return "no sshd here, run `make system-deps`"
    folder.mkdir(parents=True)
    tried = subprocess.run([*_UNSHARE, "/bin/sh", "-c", _TRY], cwd=folder, capture_output=True, text=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)
    if tried.returncode:
        return f"no binfmt_misc or overlay in a user namespace (Linux 6.7 is needed): {tried.stderr.strip()}"
    return ""


def prepare(folder: Path) -> None:
    """The state of a device: keys, what it takes from the host, its /sys and its processor."""
    for name in ("upper/home/edge", "work", "host", "sys"):
        (folder / name).mkdir(parents=True)
    for key in ("host_key", "user"):
        sshd.keygen("-t", "ed25519", "-N", "", "-f", str(folder / key))
    (folder / "host.pub").write_text((folder / "host_key.pub").read_text())
    cpus = os.cpu_count() or 1
    (folder / "cpuinfo").write_text(made_up.cpuinfo(cpus))
    made_up.sysfs(folder / "sys", cpus)
    _borrow(folder / "host")
    for file in ("host_key", "user.pub"):
        shutil.copy(folder / file, folder / "host")


def _borrow(host: Path) -> None:
    """The host's sshd with its libraries, and qemu with a fixed processor in front of it where a compiler is here."""
    server = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    assert server
    programs = [
        Path(server),
        *(p for n in ("sshd-session", "sshd-auth") if (p := Path("/usr/lib/openssh", n)).exists()),
    ]
    for program in programs:
        shutil.copy(program, host)
        for library in re.findall(r"(/\S+)", subprocess.check_output(["ldd", str(program)], text=True)):
            shutil.copy(library.rstrip(":"), host)
    qemu = shutil.which(QEMU)
    assert qemu
    shutil.copy(qemu, host / QEMU)
    options = (f'-DQEMU="/run/host/{QEMU}"', f'-DCPU="{CPU}"')
    made = host / "cpu"
    with contextlib.suppress(FileNotFoundError):
        argv = ["cc", "-static", "-O1", *options, "-o", str(made), str(_HERE / "cpu.c")]
        subprocess.run(argv, capture_output=True, check=False)
    shutil.copy(made if made.exists() else host / QEMU, host / "aarch64")


def _configure(host: Path, port: int) -> None:
    """The server's config. QEMU_CPU is for machines without a compiler: programs may clear it."""
    newer = "SshdSessionPath /run/host/sshd-session\n" if (host / "sshd-session").exists() else ""
    newer += "SshdAuthPath /run/host/sshd-auth\n" if (host / "sshd-auth").exists() else ""
    (host / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey /run/host/host_key\nAuthorizedKeysFile /run/host/user.pub\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nSetEnv QEMU_CPU={CPU}\n"
        f"Subsystem sftp /usr/lib/openssh/sftp-server\n{newer}"
    )


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(2400):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError


def _cmdline(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def _remove(folder: Path) -> None:
    """Its disk; the kernel leaves a folder in `work` that its owner may not read."""
    with contextlib.suppress(FileNotFoundError):
        (folder / "work" / "work").chmod(0o700)
    for name in ("upper", "work", "host"):
        shutil.rmtree(folder / name)

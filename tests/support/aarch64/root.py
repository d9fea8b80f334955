"""An aarch64 root folder and wheels for it, without root and emulation: `python tests/support/aarch64/root.py`.

Packages come from the Debian mirror that this machine's apt uses, wheels from the index that its pip uses. The result
is cached under a name that hashes all that decides it: a second call finds it there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

#: What a small board's system has; apt adds what these need. Neither pip nor ensurepip: installing may not need them.
PACKAGES = (
    "bash", "coreutils", "dash", "findutils", "grep", "gzip", "libc-bin", "libstdc++6", "openssh-sftp-server", "procps",
    "python3", "sed", "tar", "usr-is-merged", "util-linux",
)  # fmt: skip
#: Drawn in by the scripts of packages, which do not run here, or needed by nothing that does.
_LEFT_OUT = re.compile(
    r"debconf|perl|tzdata|dpkg|media-types|sensible-utils|adduser|passwd|openssh-client|libpam|libdb"
)
_NO_FILES = ("doc", "man", "locale", "info", "lintian", "bash-completion")
_ETC = {
    "passwd": "root:x:0:0::/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"
    "edge:x:1000:1000::/home/edge:/bin/bash\n",
    "group": "root:x:0:\nnogroup:x:65534:\nedge:x:1000:\n",
    "hosts": "127.0.0.1 localhost board\n",
}
RUNTIMES = ("onnxruntime", "ai-edge-litert")


class NoArmError(Exception):
    """What this machine lacks for an Arm device; no fault of the code."""


class Built(NamedTuple):
    """The root folder and the wheels that fit its Python."""

    root: Path
    wheels: Path


def cache() -> Path:
    """Where built roots are kept: EDGELATHE_TEST_CACHE, else the user's cache folder."""
    own = os.environ.get("EDGELATHE_TEST_CACHE")
    xdg = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(xdg) / "edgelathe-tests"


def build(folder: Path) -> Built:
    """The root and wheels under `folder`, made where they are not there yet. Raises NoArmError."""
    if platform.machine() != "x86_64":
        raise NoArmError(f"the Arm device is built on x86_64, this is {platform.machine()}")
    release = _release()
    place = folder / f"aarch64-{release}-{_stamp(release)}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two runs at once one builds
        if not place.is_dir():
            part = place.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            (part / "root").mkdir(parents=True)
            debs = _packages(folder / "archives", release)
            for deb in debs:
                _unpack(deb, part / "root")
            python = _finish(part / "root")
            _wheels(part / "wheels", python, _glibc(debs))
            part.rename(place)
            _forget(folder, place)
        os.utime(place)
    return Built(place / "root", place / "wheels")


def _stamp(release: str) -> str:
    """Changes with this file and with the versions of the runtimes that the host has."""
    text = [Path(__file__).read_text(), release, *(" ".join(r) for r in _requirements((3, 0)))]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:12]


def _requirements(python: tuple[int, int]) -> list[tuple[str, ...]]:
    """Sets of requirements, the best first: the host's own versions, so that answers can be compared."""
    from edgelathe.device.install import attempts

    return list(attempts(RUNTIMES, python))[:2]


def _release() -> str:
    told = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )  # fmt: skip
    if told.get("ID", "").strip('"') != "debian":
        raise NoArmError("the Arm device is made from Debian's packages, this machine is no Debian")
    return told["VERSION_CODENAME"].strip('"')


def _run(*argv: object, cwd: Path | None = None, why: str) -> str:
    """What a program prints. Raises NoArmError with its last line."""
    try:
        done = subprocess.run([*map(str, argv)], cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NoArmError(f"{why}: {argv[0]} is not here") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise NoArmError(f"{why}: {said[-1][:300]}")
    return done.stdout


def _packages(archives: Path, release: str) -> list[Path]:
    """The packages' files, fetched by an apt with a state of its own; the machine's is not touched."""
    state = archives.parent / "apt"
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    archives.mkdir(exist_ok=True)
    (state / "status").write_text("")
    mirror = _mirror(release)
    key = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    signed = f"[signed-by={key}] " if key.exists() else ""
    (state / "sources.list").write_text(f"deb {signed}{mirror} {release} main\n")
    options = {
        "APT::Architecture": "arm64", "APT::Architectures": "arm64", "APT::Sandbox::User": "",
        "APT::Install-Recommends": "false", "APT::Update::Error-Mode": "any",
        "Dir::State": state, "Dir::State::status": state / "status",
        "Dir::State::lists": state / "lists", "Dir::Cache": state, "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "-", "Acquire::Languages": "none",
    }  # fmt: skip
    apt = ["apt-get", "-q", *(a for k, v in options.items() for a in ("-o", f"{k}={v}"))]
    _run(*apt, "update", why="no arm64 packages from apt's mirror")
    plan = _run(*apt, "install", "-s", *PACKAGES, why="packages that do not fit together")
    names = [name for name in re.findall(r"^Inst (\S+)", plan, re.MULTILINE) if not _LEFT_OUT.match(name)]
    lines = _run(*apt, "download", "--print-uris", *names, why="no arm64 packages")
    files = [archives / line.split()[1] for line in lines.splitlines()]
    if not all(f.exists() for f in files):
        missing = [n for n, f in zip(names, files, strict=True) if not f.exists()]
        _run(*apt, "download", *missing, cwd=archives, why="no arm64 packages from apt's mirror")
    return files


def _mirror(release: str) -> str:
    """The site of the release's main component, as the machine's own sources name it."""
    lines = _run("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(SITE)", "Created-By: Packages",
                 why="apt does not tell its mirror")  # fmt: skip
    for line in lines.splitlines():
        name, component, site = line.split()
        if (name, component) == (release, "main"):
            return site
    raise NoArmError(f"apt's sources have no main component of {release}")


def _unpack(deb: Path, root: Path) -> None:
    """The files of a package without its documentation; none of its scripts runs."""
    for name in ("bin", "sbin", "lib"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    left_out = [f"--exclude=./usr/share/{n}" for n in _NO_FILES]
    tar = ["tar", "-x", "-C", str(root), "--keep-directory-symlink", "--no-same-owner", *left_out]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as files:
        done = subprocess.run(tar, stdin=files.stdout, check=False)
    if files.returncode or done.returncode:
        deb.unlink()
        raise NoArmError(f"{deb.name} is damaged; it is fetched again next time")


def _finish(root: Path) -> tuple[int, int]:
    """What the packages' scripts would have done, as far as anything needs it; the version of its Python."""
    if not (root / "bin" / "sh").exists():
        (root / "bin" / "sh").symlink_to("dash")
    for name in ("proc", "sys", "dev", "run", "tmp", "lib64", "home/edge", "root", "etc"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in _ETC.items():
        (root / "etc" / name).write_text(text)
    major, minor = (root / "usr" / "bin" / "python3").readlink().name.removeprefix("python").split(".")
    return int(major), int(minor)


def _glibc(debs: Sequence[Path]) -> int:
    """Its minor version."""
    return next(int(m[1]) for d in debs if (m := re.match(r"libc6_2\.(\d+)", d.name)))


def _wheels(folder: Path, python: tuple[int, int], glibc: int) -> None:
    """Wheels of the runtimes and all that they need, for that Python and C library."""
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(glibc, 16, -1)] + ["manylinux2014_aarch64"]
    options = ["--only-binary=:all:", "--implementation=cp", "--python-version={}.{}".format(*python)]
    options += [f"--abi={abi}" for abi in ("cp{}{}".format(*python), "abi3", "none")]
    options += [f"--platform={p}" for p in platforms]
    for left, requirements in reversed(list(enumerate(reversed(_requirements(python))))):
        try:
            pip = (sys.executable, "-m", "pip", "download", "-q", "-d", folder)
            _run(*pip, *options, *requirements, why="no aarch64 wheels from pip's index")
            return
        except NoArmError:
            if not left:
                raise


def _forget(folder: Path, kept: Path) -> None:
    """Remove what no run has used for a week."""
    for other in folder.glob("aarch64-*"):
        if other != kept and time.time() - other.stat().st_mtime > 7 * 86400:
            shutil.rmtree(other, ignore_errors=True)


if __name__ == "__main__":
    begun = time.perf_counter()
    try:
        built = build(cache())
    except NoArmError as e:
        sys.exit(f"NO ARM DEVICE HERE: {e}")
    print(f"{built.root.parent} · {time.perf_counter() - begun:.1f} s")

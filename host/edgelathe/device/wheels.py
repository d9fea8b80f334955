"""Which wheels of a folder fit a device, by the tags of PEP 425, 600 and 656 computed for it and not for the host."""

from __future__ import annotations

import email.parser
import zipfile
from typing import TYPE_CHECKING, NamedTuple

from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from packaging.tags import Tag

    from edgelathe.core.device import Probe

_ALIASES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_32_BIT = {"aarch64": "armv7l", "x86_64": "i686"}  # what Python is on a 32-bit system with a 64-bit kernel


class Choice(NamedTuple):
    """Wheels to send, and what they need that the folder does not have."""

    wheels: tuple[Path, ...]
    missing: tuple[str, ...]


def platforms(probe: Probe) -> list[str]:
    """Platform tags that a device takes, best first."""
    machine = probe.machine
    if probe.extra.get("bits") == 32:
        machine = _32_BIT.get(machine, machine)
    name, _, version = str(probe.extra.get("libc") or "musl 1.2").partition(" ")
    major, minor = (int(part) for part in version.split(".")[:2])
    if name != "glibc":
        return [f"musllinux_{major}_{m}_{machine}" for m in range(minor, -1, -1)] + [f"linux_{machine}"]
    oldest = 5 if machine in ("x86_64", "i686") else 17
    tags = []
    for m in range(minor, oldest - 1, -1):
        tags.append(f"manylinux_{major}_{m}_{machine}")
        if m in _ALIASES:
            tags.append(f"{_ALIASES[m]}_{machine}")
    return [*tags, f"linux_{machine}"]


def tags(probe: Probe) -> list[Tag]:
    """Every tag that the device's Python takes, best first."""
    from packaging.tags import compatible_tags, cpython_tags

    version, where = _version(probe), platforms(probe)
    abi = f"cp{version[0]}{version[1]}"
    return [*cpython_tags(version, [abi], where), *compatible_tags(version, abi, where)]


def fitting(folder: Path, probe: Probe) -> dict[str, Path]:
    """The best wheel per distribution among those that fit: newest version, then best tag. Raises UserError."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    if not folder.is_dir():
        raise UserError(folder, "no such folder", "name a folder of wheels with --wheels DIR")
    rank = {tag: i for i, tag in enumerate(tags(probe))}
    best: dict[str, tuple[tuple[object, int], Path]] = {}
    for path in sorted(folder.glob("*.whl")):
        try:
            name, version, _, offered = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        ranks = [rank[tag] for tag in offered if tag in rank]
        if ranks:
            key = (version, -min(ranks))
            if name not in best or key > best[name][0]:
                best[name] = (key, path)
    return {name: path for name, (_, path) in best.items()}


def choose(folder: Path, names: Iterable[str], probe: Probe) -> Choice:
    """The wheels of `names` and of all that they require on the device. Raises UserError for one that does not fit.

    What a wheel requires beyond the folder is told, not refused: a runtime may do without it, which its import shows.
    """
    there, chosen, missing = fitting(folder, probe), {}, []
    queue = [(name, True) for name in names]
    while queue:
        name, needed = queue.pop(0)
        if name in chosen:
            continue
        if name in there:
            chosen[name] = there[name]
            queue += [(n, False) for n in requirements(there[name], probe)]
        elif needed:
            what = f"no wheel of {name} fits {probe.name}: {example(name, probe)} would"
            raise UserError(folder, what, f"fetch it elsewhere with {download(name, probe)}")
        elif name not in missing:
            missing.append(name)
    return Choice(tuple(chosen.values()), tuple(missing))


def example(name: str, probe: Probe) -> str:
    """The file name of a wheel that would fit, as in onnxruntime-*-cp311-cp311-manylinux_2_28_aarch64.whl."""
    python = "cp{}{}".format(*_version(probe))
    return f"{name.replace('-', '_')}-*-{python}-{python}-{_usual(probe)}.whl"


def download(name: str, probe: Probe) -> str:
    """The command that fetches such a wheel elsewhere."""
    version = ".".join(map(str, _version(probe)))
    return f"`pip download {name} --only-binary=:all: --python-version {version} --platform {_usual(probe)} -d DIR`"


def requirements(wheel: Path, probe: Probe) -> Iterator[str]:
    """Distributions that a wheel's metadata requires on the device. Raises UserError where it is no wheel."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    try:
        with zipfile.ZipFile(wheel) as z:
            inside = next(n for n in z.namelist() if n.endswith(".dist-info/METADATA") and n.count("/") == 1)
            fields = email.parser.BytesHeaderParser().parsebytes(z.read(inside))
    except (OSError, zipfile.BadZipFile, StopIteration) as e:
        raise UserError(wheel, "not a wheel", "fetch it again") from e
    for text in fields.get_all("Requires-Dist") or ():
        need = Requirement(text)
        if need.marker is None or need.marker.evaluate(environment(probe)):
            yield canonicalize_name(need.name)


def environment(probe: Probe) -> dict[str, str]:
    """The variables of environment markers (PEP 508), for the device."""
    major, minor = _version(probe)
    return {
        "python_version": f"{major}.{minor}", "python_full_version": probe.python, "os_name": "posix",
        "sys_platform": "linux", "platform_system": "Linux", "platform_machine": probe.machine,
        "implementation_name": "cpython", "implementation_version": probe.python,
        "platform_python_implementation": "CPython", "platform_release": "", "platform_version": "", "extra": "",
    }  # fmt: skip


def _usual(probe: Probe) -> str:
    """The platform tag that most wheels for such a device carry: not newer than glibc 2.28."""
    names = platforms(probe)
    return next((n for n in names if n.startswith("manylinux_2_28_")), names[0])


def _version(probe: Probe) -> tuple[int, int]:
    major, minor = probe.python.split(".")[:2]
    return int(major), int(minor)

"""The agent as one archive, named by its hash: equal bytes for equal sources, so the hash is its version."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.resources.abc import Traversable

_MAIN = b"""import runpy

runpy.run_module("edgelathe_agent", run_name="__main__", alter_sys=True)
"""


class Payload(NamedTuple):
    """A zip that Python runs, and its hash."""

    data: bytes
    sha256: str


@cache
def payload() -> Payload:
    """The installed agent as an archive."""
    sources = dict(_sources(files("edgelathe_agent"), "edgelathe_agent"))
    data = archive({**sources, "__main__.py": _MAIN})
    return Payload(data, hashlib.sha256(data).hexdigest())


def archive(sources: Mapping[str, bytes]) -> bytes:
    """One zip of these files: sorted, without dates or owners, deflated."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name in sorted(sources):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16  # the same on every host system
            z.writestr(info, sources[name], zipfile.ZIP_DEFLATED, 9)
    return out.getvalue()


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        path = f"{name}/{entry.name}"
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _sources(entry, path)
        elif entry.name.endswith(".py"):
            yield path, entry.read_bytes().replace(b"\r\n", b"\n")

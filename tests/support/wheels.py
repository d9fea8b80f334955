"""Wheels made again from what is installed here, so that an installation without a network is a real one."""

from __future__ import annotations

import zipfile
from importlib import metadata
from pathlib import Path


def rebuild(name: str, folder: Path) -> Path:
    """The wheel of an installed distribution, uncompressed; its test suite is left out."""
    dist = metadata.distribution(name)
    tag = next(line[5:] for line in dist.read_text("WHEEL").splitlines() if line.startswith("Tag: "))
    path = folder / f"{dist.name.replace('-', '_')}-{dist.version}-{tag}.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as z:
        for file in dist.files:
            source = Path(dist.locate_file(file))
            if ".." not in file.parts and not {"__pycache__", "tests"} & set(file.parts) and source.is_file():
                z.write(source, str(file))
    return path


def tiny(folder: Path, filename: str, requires: tuple[str, ...] = ()) -> Path:
    """A wheel with metadata only."""
    name, version = filename.split("-")[:2]
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / filename, "w") as z:
        fields = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
        z.writestr(f"{name}-{version}.dist-info/METADATA", "Metadata-Version: 2.1\n" + "\n".join(fields) + "\n\n")
    return folder / filename

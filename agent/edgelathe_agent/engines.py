"""Engines that were built on this machine: ROOT/engines/RUNTIME-<versions and GPU>/<model>-<how it was built>/.

An engine fits one GPU and one version of everything that made it (NVIDIA, TensorRT Developer Guide, "Serializing a
Plan"); ONNX Runtime asks to remove old ones by hand. Here whatever was made by other versions goes when a new one is
looked for, and the longest unused go when all together take too much room.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from typing import Dict, List, Mapping, Tuple

KEEP_BYTES = 2 << 30
_ABOUT = "about.json"


def folder(
    root: str, runtime: str, versions: Dict[str, str], gpu: Dict[str, str], model: str, built: Dict[str, str]
) -> str:
    """The folder for one engine, made if need be; its parent is for what all engines of this runtime and GPU share.

    `versions` of the runtime and what it is made of, `gpu`: its name and capability, `model`: its sha256, `built`: all
    options that change the engine. Folders of this runtime with other versions are removed.
    """
    about = {"runtime": runtime, "versions": versions, "gpu": gpu}
    home = os.path.join(root, "engines")
    parent = os.path.join(home, f"{runtime}-{_tag(about)}")
    own = os.path.join(parent, f"{model}-{_tag(built)}")
    os.makedirs(own, mode=0o700, exist_ok=True)
    _remove_stale(home, runtime, versions)
    write(os.path.join(parent, _ABOUT), json.dumps(about, sort_keys=True).encode())
    os.utime(own)
    _trim(home, own)
    return own


def write(path: str, data: bytes) -> None:
    """A file that is whole or not there."""
    partial = f"{path}.{os.getpid()}"
    try:
        with open(partial, "wb") as f:
            f.write(data)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def stamps(own: str, ending: str) -> Dict[str, int]:
    """Time of last change, in ns, of the files with this ending: two such tell whether an engine was built between."""
    with os.scandir(own) as found:
        return {e.name: e.stat().st_mtime_ns for e in found if e.name.endswith(ending)}


def _tag(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _remove_stale(home: str, runtime: str, versions: Dict[str, str]) -> None:
    for name in os.listdir(home):
        path = os.path.join(home, name)
        if not name.startswith(runtime + "-") or not os.path.isfile(os.path.join(path, _ABOUT)):
            continue
        try:
            with open(os.path.join(path, _ABOUT), "rb") as f:
                current = json.loads(f.read()).get("versions") == versions
        except (OSError, ValueError):
            current = False
        if not current:
            shutil.rmtree(path, ignore_errors=True)


def _trim(home: str, own: str) -> None:
    """The longest unused engines go until the rest takes at most KEEP_BYTES; the one at hand stays."""
    found: List[Tuple[float, int, str]] = []
    for runtime in os.listdir(home):
        for name in os.listdir(os.path.join(home, runtime)):
            path = os.path.join(home, runtime, name)
            if os.path.isdir(path):
                with contextlib.suppress(OSError), os.scandir(path) as files:
                    found.append((os.stat(path).st_mtime, sum(f.stat().st_size for f in files), path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= KEEP_BYTES:
            return
        if path != own:
            shutil.rmtree(path, ignore_errors=True)
            total -= size

"""Where a vendor's program is."""

from __future__ import annotations

import os
from typing import Optional

#: Where the packages of TensorRT, JetPack's among them, put `trtexec`.
FOLDERS = ("/usr/src/tensorrt/bin",)


def find(name: str) -> Optional[str]:
    """The path of a program: on PATH, or in one of `FOLDERS`; None where there is none."""
    for folder in (*os.environ.get("PATH", os.defpath).split(os.pathsep), *FOLDERS):
        path = os.path.join(folder, name)
        if folder and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None

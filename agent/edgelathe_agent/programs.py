"""Where a vendor's programs and packages are, when they came with the system."""

from __future__ import annotations

import os
import sys
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


def packages(name: str) -> Optional[str]:
    """The folder of the system's own packages for this version of Python, where it has this one; a virtual environment
    hides it. Debian's policy for Python, 2.5: dist-packages."""
    for version in ("{}.{}".format(*sys.version_info[:2]), str(sys.version_info[0])):
        folder = f"/usr/lib/python{version}/dist-packages"
        if os.path.isdir(os.path.join(folder, name)):
            return folder
    return None

"""Other Pythons than the one that runs the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def interpreter(version: str) -> str:
    """A Python of that version: on the path, or among pyenv's."""
    roots = [os.environ.get("PYENV_ROOT", ""), Path.home() / ".pyenv"]
    found = [shutil.which(f"python{version}")]
    found += [str(p) for root in roots if root for p in sorted(Path(root).glob(f"versions/{version}.*/bin/python"))]
    for python in filter(None, found):
        said = subprocess.run(
            [python, "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=False
        )
        if said.returncode == 0 and said.stdout.startswith(version + "."):
            return python
    pytest.skip(f"NO PYTHON {version} HERE: the agent is not tested on it")

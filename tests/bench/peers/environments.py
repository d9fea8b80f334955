"""A virtual environment for each peer, made when it is first asked for and kept."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

from bench.peers.catalogue import Peer

# Read when this is imported: a test's own home has no environments.
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgelathe" / "peers"
_GIVEN = os.environ.get("EDGELATHE_PEERS")  # a folder with environments made by hand, named as the runners
_INSTALL_S = 1800


class CannotInstallError(Exception):
    """A peer cannot be had here; the text says why."""


def python(peer: Peer) -> Path:
    """The interpreter of the peer's environment, which is made if need be. Raises CannotInstallError."""
    if not peer.requires:
        return Path(sys.executable)
    short = Path(peer.runner).stem.removeprefix("run_")
    if _GIVEN and (found := Path(_GIVEN) / short / "bin" / "python").exists():
        return found
    folder = _CACHE / f"{short}-{hashlib.sha256(' '.join(peer.requires).encode()).hexdigest()[:12]}"
    if not (folder / "whole").exists():
        _install(folder, peer.requires)
    return folder / "bin" / "python"


def _install(folder: Path, requires: tuple[str, ...]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    venv.create(folder, with_pip=True, clear=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", *requires]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise CannotInstallError(f"not installed within {_INSTALL_S} s") from None
    if done.returncode:
        raise CannotInstallError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed")
    (folder / "whole").touch()

"""A real sshd for the whole run, a device behind it for each test, and the bundled models."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from edgelathe.core.device import Target
from edgelathe.model import io
from edgelathe.model.types import Model
from support.sshd import Sshd, available, gone, sshd

BUNDLED = Path(str(files("edgelathe"))) / "bundled"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if not available():
        pytest.skip("NO SSHD: run `make system-deps`")
    with sshd(tmp_path_factory.mktemp("ssh") / "board") as running:
        yield running


@pytest.fixture
def board(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """A device that is trusted, whose Python has the runtimes; nothing of it may run on after the test."""
    server.trust()
    server.configure()
    monkeypatch.setenv("EDGELATHE_SSH_CONFIG", str(server.config))
    before = set(threading.enumerate())
    root = tmp_path / "device-root"
    yield Target("board", "ssh://board", root=str(root), python=sys.executable)
    assert gone(str(root)), "an agent runs on"
    assert set(threading.enumerate()) <= before, "a thread runs on"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Target]:
    """The local device with a root of its own."""
    root = tmp_path / "local-root"
    yield Target("local", "local", root=str(root))
    assert gone(str(root)), "an agent runs on"


@pytest.fixture(scope="session")
def digits() -> Model:
    return io.load(BUNDLED / "digits.onnx")


@pytest.fixture(scope="session")
def digits_tflite() -> Model:
    return io.load(BUNDLED / "digits.tflite")


@pytest.fixture(scope="session")
def samples() -> np.ndarray:
    return np.load(BUNDLED / "eval.npz")["x"]

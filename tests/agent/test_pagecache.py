from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edgelathe_agent.pagecache import cached, drop


def file_system(path: Path) -> str:
    return subprocess.run(
        ["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, check=True
    ).stdout.strip()


def share(path: Path) -> float | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return cached(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [1, 4096, 1_000_001])
def test_a_dropped_file_is_not_in_memory_and_a_read_one_is(tmp_path, size):
    if file_system(tmp_path) in ("tmpfs", "ramfs"):
        pytest.skip(f"{tmp_path} IS IN MEMORY: no page cache to leave")
    path = tmp_path / "model"
    path.write_bytes(os.urandom(size))
    assert share(path) == 1.0
    assert drop(str(path)) == ""
    assert share(path) == 0.0
    path.read_bytes()
    assert share(path) == 1.0


def test_a_file_system_in_memory_keeps_it_and_that_is_said(tmp_path):
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or file_system(shm) != "tmpfs":
        pytest.skip("NO FILE SYSTEM IN MEMORY HERE")
    path = shm / f"edgelathe-{os.getpid()}"
    path.write_bytes(bytes(10_000))
    try:
        assert drop(str(path)).startswith("100% of the model stayed in the page cache")
    finally:
        path.unlink()


def test_an_empty_file_is_cold(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert drop(str(tmp_path / "empty")) == ""

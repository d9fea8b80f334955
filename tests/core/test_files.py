from __future__ import annotations

import errno
import hashlib
import stat
from pathlib import Path

import pytest

from edgelathe.core import files
from edgelathe.core.errors import UserError


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    files.write(path, b"old")
    files.write(path, b"new")
    files.write(tmp_path / "b.txt", "ä")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "b.txt").read_bytes() == "ä".encode()
    assert names(tmp_path) == ["a.bin", "b.txt"]
    assert files.sha256(path) == hashlib.sha256(b"new").hexdigest()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_or_ctrl_c_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.bin"
    files.write(path, b"old")

    def fail() -> None:
        with files.replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_permissions_are_those_of_a_plain_open(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    files.write(tmp_path / "a", b"")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    (tmp_path / "a").chmod(0o600)
    files.write(tmp_path / "a", b"x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_what_will_be_refused_can_be_known_before(tmp_path):
    files.write(tmp_path / "old", b"old")
    files.prove(tmp_path / "old")
    files.prove(tmp_path / "new")
    with pytest.raises(UserError, match="make the folder first"):
        files.prove(tmp_path / "no" / "new")
    assert names(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old"


def test_what_the_system_refuses_is_one_line_with_a_mend(tmp_path):
    (tmp_path / "file").touch()
    for path, word in [(tmp_path, "folder"), (tmp_path / "no/where/x", "folder"), (tmp_path / "file/x", "path")]:
        with pytest.raises(UserError, match=word) as e:
            files.write(path, b"x")
        assert str(path) in str(e.value)
    with pytest.raises(UserError, match="cannot be read"):
        files.sha256(tmp_path / "missing")
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_nothing(tmp_path):
    def fill() -> None:
        with files.replacing(tmp_path / "full"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"no space left.*make room"):
        fill()
    assert names(tmp_path) == []


def test_folders_follow_the_xdg_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative/is/ignored")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.data_dir() == tmp_path / "edgelathe"
    assert files.config_dir() == Path.home() / ".config/edgelathe"
    assert files.cache_dir() == Path.home() / ".cache/edgelathe"


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())

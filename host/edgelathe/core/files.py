"""Files: written whole or not at all, hashed, and kept where the user's system wants them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgelathe.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MENDS = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room in your quota",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that is not read-only",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
    errno.EISDIR: "that is a folder; name a file",
    errno.ENOENT: "make the folder first",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def write(path: str | Path, data: bytes | str) -> None:
    """Write a file whole: temporary name, fsync, rename. Text is UTF-8. Raises UserError where it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is removed when not.

    Ctrl-C counts as not well. Raises UserError for what the system refuses, with the mend.
    """
    path = Path(path)
    temporary = None
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _settle(temporary, path)
        temporary = None
    except OSError as e:
        raise UserError(path, f"cannot be written ({_reason(e)})", _MENDS.get(e.errno or 0, "check the path")) from e
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


class _ProvedError(Exception):
    pass


def prove(path: str | Path) -> None:
    """Raises UserError where `path` cannot be written, before the work whose result goes there; leaves nothing."""
    with contextlib.suppress(_ProvedError), replacing(path):
        raise _ProvedError


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """One at a time of those who write several files that belong together into a folder; leaves nothing there."""
    held = None
    try:
        with contextlib.suppress(OSError):  # a file system without locks, or no folder, of which the writer hears
            held = os.open(folder, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        if held is not None:
            os.close(held)


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes, read block by block. Raises UserError where it cannot be read."""
    try:
        with Path(path).open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise UserError(path, f"cannot be read ({_reason(e)})", "check the path") from e


def data_dir() -> Path:
    """Where the store lives: `$XDG_DATA_HOME/edgelathe`, default `~/.local/share`. Not made."""
    return _xdg("XDG_DATA_HOME", ".local/share")


def config_dir() -> Path:
    """Where the user's own profiles live: `$XDG_CONFIG_HOME/edgelathe`, default `~/.config`. Not made."""
    return _xdg("XDG_CONFIG_HOME", ".config")


def cache_dir() -> Path:
    """What can be made again: `$XDG_CACHE_HOME/edgelathe`, default `~/.cache`. Not made."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def _xdg(variable: str, default: str) -> Path:
    base = os.environ.get(variable, "")
    # The XDG base directory specification: a relative path is invalid and is to be ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / default) / "edgelathe"


def _settle(temporary: Path, path: Path) -> None:
    """On disk before it gets its name; with the permissions that a plain `open` would have given."""
    mask = os.umask(0)
    os.umask(mask)
    temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~mask)
    with temporary.open("rb") as f:
        os.fsync(f.fileno())
    temporary.replace(path)
    with contextlib.suppress(OSError):  # some file systems have no fsync on folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _reason(e: OSError) -> str:
    return (e.strerror or str(e)).lower()

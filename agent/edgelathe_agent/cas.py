"""Content-addressed files: ROOT/cas/<aa>/<sha256>, whole and checked, or ROOT/cas/partial/<sha256> on their way."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from edgelathe_agent.protocol import AgentError

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
#: Bytes beyond which the files that were not used for an hour go, the longest unused first, when another is put.
KEEP_BYTES, KEEP_SECONDS = 1 << 30, 3600.0
#: What a full disk, a used up quota and a file size limit answer.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Hashed(NamedTuple):
    """The hash of a partial file so far: of its first `size` bytes, as long as nobody else has written to it."""

    digest: Any
    size: int
    written_ns: int


class Store:
    """The files under one root. A name is a sha256 in hex, never a path; what is whole has been checked."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._hashed: Dict[str, _Hashed] = {}
        self._folder = os.path.join(root, "cas")
        self._used: Set[str] = set()

    def path(self, sha256: Any) -> str:
        """Where the whole file of this hash is or will be. Raises AgentError("request") when it is no sha256."""
        return os.path.join(self._folder, _name(sha256)[:2], sha256)

    def partial(self, sha256: Any) -> str:
        """Where the bytes of a transfer that has not ended are."""
        return os.path.join(self._folder, "partial", _name(sha256))

    def find(self, sha256: Any) -> str:
        """The path of a whole file. Raises AgentError("missing") when it is not there."""
        path = self.path(sha256)
        if not os.path.isfile(path):
            raise AgentError("missing", f"no file {sha256} on the device", "send it first")
        self._use(sha256)
        return path

    def link(self, sha256: Any, model: Any) -> str:
        """A whole file under its name in the folder of `model`, which looks for it there: a second name, not a copy."""
        path, beside = self.find(sha256), os.path.join(os.path.dirname(self.path(model)), sha256)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(path, beside)
        except OSError as e:
            what = (
                f"a model of several files needs hard links, which the file system of {self.root} lacks: {e.strerror}"
            )
            raise AgentError("space", what, "choose another --root") from None
        return beside

    def sizes(self, names: List[Any]) -> Tuple[Dict[str, int], Dict[str, int]]:
        """Bytes of the named files that are whole, and of those that are on their way."""
        whole = {n: _size(self.path(n)) for n in names}
        partial = {n: _size(self.partial(n)) for n in names if whole[n] is None}
        for name, size in whole.items():
            if size is not None:
                self._use(name)
        return _known(whole), _known(partial)

    def remove(self, names: List[Any]) -> int:
        """Delete the named files, whole or partial, and what `link` made of them; how many were there."""
        for name in names:
            self._unlink_beside(name)
        paths = [p for n in names for p in (self.path(n), self.partial(n))]
        return sum(_unlink(p) for p in paths)

    def put(self, sha256: str, size: int, offset: int, data: bytes) -> Tuple[int, bool]:
        """Write one chunk of a file of `size` bytes at `offset`; bytes received so far, and whether the file is whole.

        Writing bytes again that are there already is allowed, a gap is not. Raises AgentError: "request", "corrupt"
        (the partial file is removed), "space" (likewise: a full disk is of no use to the device).
        """
        path, partial = self.path(sha256), self.partial(sha256)
        if os.path.isfile(path):
            return _size(path) or 0, True
        there = _size(partial) or 0
        if there > size:  # no beginning of this file
            _unlink(partial)
            there = 0
        with self._space(partial, size - there):
            if not 0 <= offset <= there or offset + len(data) > size:
                what = f"{len(data)} bytes at {offset} of {size} do not follow the {there} received"
                raise AgentError("request", what, f"go on from {there}")
            os.makedirs(os.path.dirname(partial), mode=0o700, exist_ok=True)
            self._write(sha256, offset, data)
            received = max(there, offset + len(data))
            if received < size:
                return received, False
            self._finish(partial, path, sha256, size)
            self._use(sha256)
            self._evict()
        return size, True

    def _unlink_beside(self, sha256: Any) -> None:
        """Its bytes stay on the disk as long as one name of them does."""
        path = self.path(sha256)
        with contextlib.suppress(OSError):
            if os.stat(path).st_nlink > 1:
                for folder in os.listdir(self._folder):
                    beside = os.path.join(self._folder, folder, sha256)
                    if beside != path:
                        _unlink(beside)

    def _use(self, sha256: str) -> None:
        """Mark as used now: what this agent uses stays while it runs, also beside other agents on the same root."""
        self._used.add(sha256)
        with contextlib.suppress(OSError):
            os.utime(self.path(sha256))

    def _evict(self) -> None:
        """Samples and models stay for the next run, but they must not fill the device."""
        files: Dict[int, Tuple[float, int, List[str]]] = {}  # by inode: a linked file takes its bytes once
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    stat = os.stat(path)
                    files.setdefault(stat.st_ino, (stat.st_mtime, stat.st_size, []))[2].append(path)
        over = sum(size for _, size, _ in files.values()) - KEEP_BYTES
        for used, size, paths in sorted(files.values()):
            if over <= 0 or time.time() - used < KEEP_SECONDS:
                return
            if os.path.basename(paths[0]) not in self._used:
                for path in paths:
                    _unlink(path)
                over -= size

    def _write(self, sha256: str, offset: int, data: bytes) -> None:
        """Write and, where the bytes follow those before, hash them: at the end nothing is left to read again."""
        known = self._hashed.pop(sha256, None)
        fd = os.open(self.partial(sha256), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            before = os.fstat(fd)
            _pwrite(fd, offset, data)
            if offset == 0:
                known = _Hashed(hashlib.sha256(), 0, 0)
            elif known is not None and (known.size, known.written_ns) != (offset, before.st_mtime_ns):
                known = None
            if known is not None:
                known.digest.update(data)
                self._hashed[sha256] = _Hashed(known.digest, offset + len(data), os.fstat(fd).st_mtime_ns)
        finally:
            os.close(fd)

    def _hash(self, sha256: str, fd: int, size: int) -> str:
        known = self._hashed.pop(sha256, None)
        whole = known is not None and (known.size, known.written_ns) == (size, os.fstat(fd).st_mtime_ns)
        return str(known.digest.hexdigest()) if known is not None and whole else _hash(fd)

    def _finish(self, partial: str, path: str, sha256: str, size: int) -> None:
        """Check the whole file, then give it its name, so that a power cut leaves the whole file or none."""
        fd = os.open(partial, os.O_RDWR)
        try:
            found = self._hash(sha256, fd, size)
            if found != sha256:
                _unlink(partial)
                raise AgentError("corrupt", f"{sha256} arrived as {found}", "send it again")
            os.fsync(fd)
        finally:
            os.close(fd)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.replace(partial, path)
        fd = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _space(self, partial: str, wanted: int) -> Iterator[None]:
        """Refuse before the first byte what cannot fit, and clear up after a write that found no room."""
        free = free_bytes(self.root)
        try:
            if free is not None and wanted > free:
                raise OSError(errno.ENOSPC, "no space")
            yield
        except OSError as e:
            if e.errno not in FULL:
                raise
            _unlink(partial)
            what = f"{wanted} more bytes wanted under {self.root}, {free_bytes(self.root)} free"
            raise AgentError("space", what, "free some space there, or choose another --root") from None


def free_bytes(path: str) -> Optional[int]:
    """Bytes that an ordinary user may still write on the file system of `path` or of its nearest folder there is."""
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    try:
        s = os.statvfs(path)
    except OSError:
        return None
    return s.f_bavail * s.f_frsize


def _name(sha256: Any) -> str:
    if not isinstance(sha256, str) or not _SHA256.match(sha256):
        raise AgentError("request", f"{sha256!r:.80} is no sha256")
    return sha256


def _size(path: str) -> Optional[int]:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


def _known(sizes: Dict[str, Optional[int]]) -> Dict[str, int]:
    return {name: size for name, size in sizes.items() if size is not None}


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _pwrite(fd: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        n = os.pwrite(fd, view, offset)
        view, offset = view[n:], offset + n


def _hash(fd: int) -> str:
    digest, offset = hashlib.sha256(), 0
    while True:
        data = os.pread(fd, 1 << 20, offset)
        if not data:
            return digest.hexdigest()
        digest.update(data)
        offset += len(data)

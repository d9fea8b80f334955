"""Compressed models by their sha256: in a folder beside an SQLite file, else in a table of the database."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

from edgelathe.store.schema import ARTIFACTS

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


class Artifacts(Protocol):
    """Where artifacts are kept. Each call belongs to a transaction of the store."""

    def put(self, connection: sa.Connection, data: bytes) -> str:
        """Keep `data`; its sha256."""

    def get(self, connection: sa.Connection, sha256: str) -> bytes | None:
        """The bytes kept under that name; None where there are none."""

    def sweep(self, connection: sa.Connection, used: Collection[str]) -> None:
        """Drop all but `used`."""


class Folder:
    """A file per artifact; each appears whole or not at all, and is on the disk when `put` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, _connection: sa.Connection, data: bytes) -> str:
        """Keep `data`; its sha256. Raises OSError."""
        name = hashlib.sha256(data).hexdigest()
        target = self.path / name
        if target.exists() and target.stat().st_size == len(data):
            return name
        self.path.mkdir(parents=True, exist_ok=True)
        part = self.path / f".{name}.{os.getpid()}"
        try:
            with part.open("wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        _sync_folder(self.path)
        return name

    def get(self, _connection: sa.Connection, sha256: str) -> bytes | None:
        """The bytes kept under that name; None where there are none."""
        try:
            return (self.path / sha256).read_bytes()
        except FileNotFoundError:
            return None

    def sweep(self, _connection: sa.Connection, used: Collection[str]) -> None:
        """Drop all but `used`, and what a killed process left half-written."""
        if self.path.is_dir():
            for file in self.path.iterdir():
                if file.name not in used:
                    file.unlink(missing_ok=True)


class InTable:
    """A row per artifact, for databases that several machines share."""

    def put(self, connection: sa.Connection, data: bytes) -> str:
        """Keep `data`; its sha256."""
        name = hashlib.sha256(data).hexdigest()
        if connection.execute(sa.select(ARTIFACTS.c.sha256).where(ARTIFACTS.c.sha256 == name)).first() is None:
            connection.execute(ARTIFACTS.insert().values(sha256=name, data=data))
        return name

    def get(self, connection: sa.Connection, sha256: str) -> bytes | None:
        """The bytes kept under that name; None where there are none."""
        data = connection.execute(sa.select(ARTIFACTS.c.data).where(ARTIFACTS.c.sha256 == sha256)).scalar()
        return None if data is None else bytes(data)

    def sweep(self, connection: sa.Connection, used: Collection[str]) -> None:
        """Drop all but `used`."""
        connection.execute(ARTIFACTS.delete().where(ARTIFACTS.c.sha256.not_in(sorted(used))))


def _sync_folder(path: Path) -> None:
    """Make a rename durable (fsync(2): the folder's entry is not covered by the file's own)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""A reader of FlatBuffers that trusts no offset: whatever points outside of the file is found, never followed.

Source: FlatBuffers, "Internals" (tables, vtables, vectors, strings).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FormatError(ValueError):
    """The bytes are no FlatBuffer of the expected form; the text says where."""


@dataclass(frozen=True)
class Table:
    """One table: `at` is its place in `data`, `fields` the places of its fields by number (those that are there)."""

    data: bytes
    at: int
    fields: dict[int, int]

    @classmethod
    def read(cls, data: bytes, at: int) -> Table:
        """The table at a place. Raises FormatError."""
        vtable = at - _unpack(data, "<i", at)
        size, inline = _unpack(data, "<H", vtable), _unpack(data, "<H", vtable + 2)
        if size < 4 or size % 2 or vtable + size > len(data) or at + inline > len(data):
            raise FormatError(f"a table at byte {at} reaches beyond its end")
        offsets = struct.unpack_from(f"<{size // 2 - 2}H", data, vtable + 4)
        if any(o >= inline for o in offsets if o):
            raise FormatError(f"a field of the table at byte {at} lies outside of it")
        return cls(data, at, {i: at + o for i, o in enumerate(offsets) if o})

    @classmethod
    def root(cls, data: bytes) -> Table:
        """The first table of a file. Raises FormatError."""
        return cls.read(data, _unpack(data, "<I", 0))

    def number(self, field: int, code: str, default: int = 0) -> int:
        """A scalar field by its struct code."""
        return int(_unpack(self.data, "<" + code, self.fields[field])) if field in self.fields else default

    def real(self, field: int, default: float = 0.0) -> float:
        """A float32 field."""
        return float(_unpack(self.data, "<f", self.fields[field])) if field in self.fields else default

    def table(self, field: int) -> Table | None:
        """A sub-table, or None where it is left out."""
        return Table.read(self.data, self._target(field)) if field in self.fields else None

    def tables(self, field: int) -> list[Table]:
        """A vector of tables; empty where it is left out."""
        if field not in self.fields:
            return []
        at, count = self._vector(field, 4)
        offsets = struct.unpack_from(f"<{count}I", self.data, at)
        return [Table.read(self.data, at + 4 * i + o) for i, o in enumerate(offsets)]

    def array(self, field: int, dtype: str) -> NDArray[np.generic] | None:
        """A vector of scalars as a view on the file, or None where it is left out."""
        if field not in self.fields:
            return None
        kind = np.dtype(dtype)
        at, count = self._vector(field, kind.itemsize)
        return np.frombuffer(self.data, kind, count, at) if count else np.empty(0, kind)

    def numbers(self, field: int, dtype: str) -> list[int]:
        """A vector of whole numbers as a list; empty where it is left out."""
        values = self.array(field, dtype)
        return [] if values is None else [int(v) for v in values]

    def text(self, field: int) -> str:
        """A string; empty where it is left out."""
        if field not in self.fields:
            return ""
        at, count = self._vector(field, 1)
        return self.data[at : at + count].decode("utf-8", "replace")

    def _target(self, field: int) -> int:
        at = self.fields[field]
        return at + int(_unpack(self.data, "<I", at))

    def _vector(self, field: int, itemsize: int) -> tuple[int, int]:
        """Place of the first item and how many there are."""
        at = self._target(field)
        count = int(_unpack(self.data, "<I", at))
        if at + 4 + count * itemsize > len(self.data):
            raise FormatError(f"{count} items at byte {at} reach beyond the end of the file ({len(self.data)} bytes)")
        return at + 4, count


def _unpack(data: bytes, code: str, at: int) -> Any:
    if at < 0 or at + struct.calcsize(code) > len(data):
        raise FormatError(f"an offset points to byte {at} of {len(data)}")
    return struct.unpack_from(code, data, at)[0]

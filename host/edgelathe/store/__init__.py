"""Runs and devices in a database.

`open_store` gives the one that the user named; SQLAlchemy is loaded then and not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgelathe.store.types import RunRow, RunState, StoredCandidate

if TYPE_CHECKING:
    from edgelathe.store.store import Store

__all__ = ["RunRow", "RunState", "StoredCandidate", "open_store"]


def open_store(url: str | None = None) -> Store:
    """The store at `url` (else `EDGELATHE_STORE`, else SQLite in the user's data folder), made where it is missing.

    `url` is a path, `sqlite:///path` or `postgresql+psycopg://user@host/name`. A context manager. Raises UserError
    for what is no store of ours, is newer than this edgelathe or cannot be written.
    """
    from edgelathe.store.store import Store

    return Store(url)

"""One database: where it is, its transactions, and its errors in the user's words."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from edgelathe.core.errors import EdgelatheError, HostError, UserError
from edgelathe.store import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_MS = 30_000  # for another process that writes
WRITERS = 0x65646765  # PostgreSQL's advisory lock: one writer at a time, as in SQLite

ERRORS: tuple[tuple[str, type[EdgelatheError], str, str], ...] = (
    ("not a database", UserError, "is no store (not an SQLite database)", "name another file with --store"),
    ("malformed", UserError, "is a damaged SQLite database", "restore a copy or name another file with --store"),
    ("readonly", UserError, "cannot be written", "make it writable or name another one with --store"),
    (
        "unable to open",
        UserError,
        "cannot be opened",
        "check the folder and its rights or name another one with --store",
    ),
    ("is full", HostError, "the disk is full", "free some space; what was saved before is kept"),
    ("disk i/o", HostError, "the disk failed", "check the disk; what was saved before is kept"),
    ("locked", HostError, "another process kept it locked for 30 s", "look for a hanging edgelathe process"),
)


class Database:
    """An open database with current tables. `where` names it in messages, without its password."""

    def __init__(self, url: str | None = None) -> None:
        self.url = resolve(url)
        self.path = Path(self.url.database) if self.url.database and _is_sqlite(self.url) else None
        self.where = str(self.path) if self.path else self.url.render_as_string(hide_password=True)
        if self.path:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise UserError(
                    self.where, f"its folder cannot be made ({e.strerror})", "name another one with --store"
                ) from e
        self._engine = _engine(self.url, self.where)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        with self.read() as connection:
            current = schema.current(connection, self.where)
        if not current:
            with self.write() as connection:
                schema.bring_forward(connection, self.where)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database and does not wait for writers."""
        with translated(self.where), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction with the database's only write lock; it is on the disk when the block ends."""
        with translated(self.where), self._engine.execution_options(write=True).begin() as connection:
            yield connection

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn the database's and the disk's exceptions into one line that names `where`."""
    try:
        yield
    except SQLAlchemyError as e:
        cause = str(getattr(e, "orig", None) or e).strip()
        for part, kind, what, mend in ERRORS:
            if part in cause.lower():
                raise kind(where, what, mend) from e
        line = cause.splitlines()[0] if cause else type(e).__name__
        if isinstance(e, OperationalError):
            raise UserError(
                where, f"no such database can be reached ({line})", "check address, user and password"
            ) from e
        raise HostError(where, f"the database failed ({line})", "try again with -v") from e
    except OSError as e:
        raise HostError(
            where, f"{e.filename or 'a file'} cannot be written ({e.strerror})", "free some space or check the rights"
        ) from e


def resolve(text: str | None) -> URL:
    """The database that `--store`, `EDGELATHE_STORE` or the default names. Raises UserError."""
    text = text or os.environ.get("EDGELATHE_STORE")
    if not text:
        data = os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()
        return URL.create("sqlite", database=str(Path(data) / "edgelathe" / "store.db"))
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).expanduser()))
    forms = "give a path, sqlite:///path or postgresql+psycopg://user@host/name"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise UserError("store", "the address cannot be understood", forms) from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise UserError(
            f"store {url.render_as_string(hide_password=True)}", f"no store of the kind '{url.drivername}'", forms
        )
    if url.drivername == "sqlite" and not url.database:
        raise UserError(f"store {text}", "no path in it", "give sqlite:///path (four slashes for an absolute one)")
    return url


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _engine(url: URL, where: str) -> sa.Engine:
    try:
        engine = sa.create_engine(url, hide_parameters=True)
    except ModuleNotFoundError as e:
        raise UserError(where, f"the driver '{e.name}' is not installed", "pip install 'edgelathe[postgres]'") from None
    if _is_sqlite(url):
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    else:
        sa.event.listen(engine, "begin", _begin_postgresql)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, and not by the driver's guess
    connection.execute(f"PRAGMA busy_timeout={WAIT_MS}")
    connection.execute("PRAGMA journal_mode=WAL")  # readers go on while a fit writes
    connection.execute("PRAGMA synchronous=FULL")  # what is committed survives a power cut
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: sa.Connection) -> None:
    # a lock taken later than here could fail at once instead of waiting (https://sqlite.org/lang_transaction.html)
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _begin_postgresql(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("write"):
        connection.execute(sa.func.pg_advisory_xact_lock(WRITERS).select())

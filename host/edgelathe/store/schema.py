"""The tables and how older ones are brought forward."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Boolean, Column, ForeignKey, Integer, LargeBinary, MetaData, String, Table, Text

from edgelathe.core.errors import UserError


class Json(sa.types.TypeDecorator[Any]):
    """A document as text, infinities included, which PostgreSQL's own JSON would refuse."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: sa.Dialect) -> str | None:
        """To the database; a value that JSON cannot hold raises TypeError."""
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> Any:
        """From the database."""
        return None if value is None else json.loads(value)


METADATA = MetaData()

VERSION = Table("edgelathe_schema", METADATA, Column("version", Integer, primary_key=True))

DEVICES = Table(
    "devices",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("url", Text, nullable=False),
    Column("root", Text),
    Column("python", Text),
    Column("profile", Text),
    Column("fingerprint", Text),
)

RUNS = Table(
    "runs",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),  # the order in which they were created
    Column("id", String(16), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("started", String(32), nullable=False),
    Column("finished", String(32)),
    Column("model", Text, nullable=False),
    Column("model_sha256", String(64)),
    Column("device", Text, nullable=False),
    Column("met", Boolean),
    Column("job", Json, nullable=False),
    Column("result", Json),
    Column("owner", Json),  # the process that works on it
    Column("seen", String(32), nullable=False),  # when that process last saved something
)

CANDIDATES = Table(
    "candidates",
    METADATA,
    Column("run", String(16), ForeignKey(RUNS.c.id, ondelete="CASCADE"), primary_key=True),
    Column("id", String(200), primary_key=True),
    Column("ordinal", Integer, nullable=False),
    Column("doc", Json, nullable=False),
    Column("claims", Json, nullable=False),
    Column("recipe_toml", Text, nullable=False),
    Column("artifact", String(64), index=True),
)

FILES = Table(  # what else a run needs to be resumed, such as the outputs of its baseline
    "files",
    METADATA,
    Column("run", String(16), ForeignKey(RUNS.c.id, ondelete="CASCADE"), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("artifact", String(64), nullable=False, index=True),
)

ARTIFACTS = Table(  # only where no folder beside the database can hold them
    "artifacts",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

Migration = Callable[[sa.Connection], None]
MIGRATIONS: tuple[Migration, ...] = ()  # the i-th one (from 1) brings version i to i + 1


def version(connection: sa.Connection, where: str) -> int:
    """The schema version found; 0 for an empty database. Raises UserError where the tables are someone else's."""
    tables = sa.inspect(connection).get_table_names()
    if VERSION.name in tables:
        return int(connection.execute(sa.select(VERSION.c.version)).scalar_one())
    if tables:
        mend = "name an empty database or a new file with --store"
        raise UserError(where, f"holds tables of another program ('{min(tables)}')", mend)
    return 0


def current(connection: sa.Connection, where: str) -> bool:
    """Whether the tables are those of this code. Raises UserError where they are newer."""
    found, ours = version(connection, where), 1 + len(MIGRATIONS)
    if found > ours:
        what = f"was written by a newer edgelathe (schema {found}, this one knows {ours})"
        raise UserError(where, what, "upgrade edgelathe or name another store with --store")
    return found == ours


def bring_forward(connection: sa.Connection, where: str) -> None:
    """Make the tables, or migrate them, in the transaction of `connection`, so that it is done wholly or not at all."""
    if current(connection, where):
        return  # another process was quicker
    found = version(connection, where)
    if found == 0:
        METADATA.create_all(connection)
        connection.execute(VERSION.insert().values(version=1 + len(MIGRATIONS)))
        return
    for number, migrate in enumerate(MIGRATIONS[found - 1 :], start=found + 1):
        migrate(connection)
        connection.execute(VERSION.update().values(version=number))

"""Runs: each with its job, state, candidates, and the process that works on it."""

from __future__ import annotations

import secrets
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from edgelathe.core.errors import EdgelatheError, UserError, nearest
from edgelathe.store.database import Database
from edgelathe.store.owner import Owner
from edgelathe.store.schema import RUNS
from edgelathe.store.types import FINAL, RunRow, RunState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Runs(Database):
    """The runs, without their candidates."""

    def create_run(self, job: Mapping[str, Any]) -> str:
        """Begin a run in the state `planned`; its id, 8 hexadecimal digits.

        `job` is a JSON document with everything needed to resume. Its `model`, `model_sha256` and `device` (texts) are
        what lists of runs show, and what tells a resumed run whether the file is still the same.
        """
        now = _now()
        with self.write() as connection:
            taken = set(connection.execute(sa.select(RUNS.c.id)).scalars())
            run = next(r for r in iter(lambda: secrets.token_hex(4), None) if r not in taken)
            connection.execute(
                RUNS.insert().values(
                    id=run, state="planned", started=now, seen=now, job=dict(job), model=str(job.get("model", "")),
                    model_sha256=job.get("model_sha256"), device=str(job.get("device", "local")),
                )
            )  # fmt: skip
        return run

    def set_run_state(
        self,
        run: str,
        state: RunState,
        *,
        result: Mapping[str, Any] | None = None,
        met: bool | None = None,
        finished: str | None = None,
    ) -> None:
        """Move a run to `state`. `result` replaces what was stored, where given; `met` is stored as it is.

        `finished` (ISO 8601) is now where the state is an end and none is given. Raises UserError for no such run.
        """
        finished = finished or (_now() if state in FINAL else None)
        values: dict[str, Any] = {"state": state, "met": met, "finished": finished, "seen": _now()}
        if result is not None:
            values["result"] = dict(result)
        with self.write() as connection:
            if connection.execute(RUNS.update().where(RUNS.c.id == run).values(values)).rowcount == 0:
                raise self._no_run(connection, run)

    def runs(self, limit: int | None = None) -> list[RunRow]:
        """Runs, newest first."""
        with self.read() as connection:
            rows = connection.execute(sa.select(RUNS).order_by(RUNS.c.seq.desc()).limit(limit)).mappings().all()
        return [_row(r) for r in rows]

    def run(self, run: str) -> RunRow:
        """The run with this id, or whose id alone begins with it. Raises UserError naming near or recent ones."""
        with self.read() as connection:
            return self._find(connection, run)

    @contextmanager
    def lock(self, run: str) -> Iterator[None]:
        """Keep a run for this process while the block runs.

        Raises UserError where a living process has it. That of a process which died is taken over.
        """
        me = Owner.here()
        with self.write() as connection:
            row = connection.execute(sa.select(RUNS.c.owner, RUNS.c.seen).where(RUNS.c.id == run)).first()
            if row is None:
                raise self._no_run(connection, run)
            owner = _living(row.owner, row.seen)
            if owner:
                raise UserError(f"run {run}", f"{owner} works on it", "wait until it is done, or stop that process")
            connection.execute(RUNS.update().where(RUNS.c.id == run).values(owner=me.to_json(), seen=_now()))
        try:
            yield
        finally:
            with suppress(EdgelatheError), self.write() as connection:  # an owner that is gone does not count anyway
                connection.execute(RUNS.update().where(RUNS.c.id == run).values(owner=None))

    def _touch(self, connection: sa.Connection, run: str) -> None:
        """Note that somebody works on a run. Raises UserError for no such run."""
        if connection.execute(RUNS.update().where(RUNS.c.id == run).values(seen=_now())).rowcount == 0:
            raise self._no_run(connection, run)

    def _find(self, connection: sa.Connection, run: str) -> RunRow:
        near = RUNS.c.id == run
        if run:
            near |= RUNS.c.id.startswith(run.lower(), autoescape=True)
        rows = connection.execute(sa.select(RUNS).where(near).order_by(RUNS.c.seq.desc())).mappings().all()
        exact = [r for r in rows if r["id"] == run]
        if len(rows) > 1 and not exact:
            ids = ", ".join(r["id"] for r in rows[:5])
            raise UserError(f"run {run}", f"{len(rows)} runs begin so", f"choose from {ids}")
        if not rows:
            raise self._no_run(connection, run)
        return _row((exact or rows)[0])

    def _no_run(self, connection: sa.Connection, run: str) -> UserError:
        recent = list(connection.execute(sa.select(RUNS.c.id).order_by(RUNS.c.seq.desc()).limit(50)).scalars())
        otherwise = "the latest are " + ", ".join(recent[:3]) if recent else f"there are none yet in {self.where}"
        return UserError(f"run {run or repr(run)}", "no such run", nearest(run, recent, otherwise))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _living(owner: Mapping[str, Any] | None, seen: str) -> Owner | None:
    """The owner, where there is one and it lives."""
    if owner is None:
        return None
    who = Owner(**owner)
    return None if who.gone(datetime.fromisoformat(seen), datetime.now(UTC)) else who


def _row(row: sa.RowMapping) -> RunRow:
    owner = _living(row["owner"], row["seen"])
    abandoned = row["state"] == "running" and row["owner"] is not None and owner is None
    return RunRow(
        run=row["id"], state="interrupted" if abandoned else row["state"], owner=str(owner) if owner else None,
        **{k: row[k] for k in ("model", "model_sha256", "device", "started", "finished", "met", "job", "result")},
    )  # fmt: skip

"""The store: device registry, runs, and their candidates with artifacts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from edgelathe.core.errors import HostError, UserError
from edgelathe.core.result import Candidate
from edgelathe.store.artifacts import Artifacts, Folder, InTable
from edgelathe.store.devices import Devices
from edgelathe.store.runs import Runs
from edgelathe.store.schema import CANDIDATES, FILES, RUNS
from edgelathe.store.types import StoredCandidate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


class Store(Devices, Runs):
    """One store, open. What a method saved is on the disk when it returns; other processes may read meanwhile."""

    def __init__(self, url: str | None = None) -> None:
        super().__init__(url)
        beside = self.path and self.path.with_name(self.path.name + "-artifacts")
        self._artifacts: Artifacts = Folder(beside) if beside else InTable()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def save_candidate(
        self,
        run: str,
        candidate: Candidate,
        *,
        claims: Mapping[str, Mapping[str, Any]],
        recipe_toml: str,
        artifact: bytes | None = None,
    ) -> None:
        """Keep a candidate, or what is newly known of it; it stays at its place in the order.

        `artifact` is the compressed model; None leaves the one that was saved before. Raises UserError for no such run.
        """
        values: dict[str, Any] = {
            "doc": candidate.to_json(), "claims": {k: dict(v) for k, v in claims.items()}, "recipe_toml": recipe_toml,
        }  # fmt: skip
        mine = (CANDIDATES.c.run == run) & (CANDIDATES.c.id == candidate.id)
        with self.write() as connection:
            self._touch(connection, run)
            if artifact is not None:
                values["artifact"] = self._artifacts.put(connection, artifact)
            if connection.execute(CANDIDATES.update().where(mine).values(values)).rowcount == 0:
                last = sa.select(sa.func.max(CANDIDATES.c.ordinal)).where(CANDIDATES.c.run == run)
                ordinal = (connection.execute(last).scalar() or 0) + 1
                connection.execute(CANDIDATES.insert().values(run=run, id=candidate.id, ordinal=ordinal, **values))

    def candidates(self, run: str) -> list[StoredCandidate]:
        """The candidates of a run, the baseline too, in the order in which they were first saved."""
        wanted = sa.select(CANDIDATES).where(CANDIDATES.c.run == run).order_by(CANDIDATES.c.ordinal)
        with self.read() as connection:
            rows = connection.execute(wanted).mappings().all()
        return [StoredCandidate(Candidate.from_json(r["doc"]), r["claims"], r["recipe_toml"]) for r in rows]

    def artifact(self, sha256: str) -> bytes:
        """The compressed model of that sha256. Raises UserError where there is none, HostError where it is damaged."""
        with self.read() as connection:
            data = self._artifacts.get(connection, sha256)
        if data is None:
            raise UserError(f"artifact {sha256[:12]}", f"is not in {self.where}", "fit again")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise HostError(f"artifact {sha256[:12]}", f"is damaged in {self.where}", "check the disk, then fit again")
        return data

    def save_file(self, run: str, name: str, data: bytes) -> None:
        """Keep something under a name that is unique in its run, in place of what was there. Raises UserError."""
        mine = (FILES.c.run == run) & (FILES.c.name == name)
        with self.write() as connection:
            self._touch(connection, run)
            kept = self._artifacts.put(connection, data)
            if connection.execute(FILES.update().where(mine).values(artifact=kept)).rowcount == 0:
                connection.execute(FILES.insert().values(run=run, name=name, artifact=kept))

    def file(self, run: str, name: str) -> bytes | None:
        """What `save_file` kept; None where there is nothing under that name. Raises HostError where it is damaged."""
        wanted = sa.select(FILES.c.artifact).where((FILES.c.run == run) & (FILES.c.name == name))
        with self.read() as connection:
            kept = connection.execute(wanted).scalar()
        return None if kept is None else self.artifact(kept)

    def delete_run(self, run: str) -> None:
        """Forget a run (an id or unique beginning) and the artifacts that no other run uses. Raises UserError."""
        with self.write() as connection:
            row = self._find(connection, run)
            if row.owner:
                raise UserError(
                    f"run {row.run}", f"{row.owner} works on it", "wait until it is done, or stop that process"
                )
            for table in (CANDIDATES, FILES):
                connection.execute(table.delete().where(table.c.run == row.run))
            connection.execute(RUNS.delete().where(RUNS.c.id == row.run))
        with self.write() as connection:  # only once the run is gone for good; a writer cannot add one in between
            used = sa.union(sa.select(CANDIDATES.c.artifact), sa.select(FILES.c.artifact))
            self._artifacts.sweep(connection, {name for name in connection.execute(used).scalars() if name})

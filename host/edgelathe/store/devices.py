"""The device registry."""

from __future__ import annotations

import re
from dataclasses import asdict

import sqlalchemy as sa

from edgelathe.core.device import Target
from edgelathe.core.errors import UserError, nearest
from edgelathe.store.database import Database
from edgelathe.store.schema import DEVICES

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Devices(Database):
    """The devices that the user has named."""

    def add_device(self, target: Target) -> None:
        """Register a device. Raises UserError as `check_new_device`."""
        with self.write() as connection:
            _check_new(connection, target.name)
            connection.execute(DEVICES.insert().values(asdict(target)))

    def check_new_device(self, name: str) -> None:
        """Raises UserError for a name that is taken or could not be told from an address."""
        with self.read() as connection:
            _check_new(connection, name)

    def devices(self) -> list[Target]:
        """All devices by name."""
        with self.read() as connection:
            rows = connection.execute(sa.select(DEVICES).order_by(DEVICES.c.name)).mappings().all()
        return [Target(**row) for row in rows]

    def device(self, name: str) -> Target:
        """The device of that name. Raises UserError with the nearest name."""
        known = {d.name: d for d in self.devices()}
        if name not in known:
            otherwise = "" if known else "register it with `edgelathe device add NAME TARGET`"
            raise UserError(f"device '{name}'", "is not registered", nearest(name, known, otherwise))
        return known[name]

    def remove_device(self, name: str) -> None:
        """Forget a device; its runs stay. Raises UserError."""
        self.device(name)
        with self.write() as connection:
            connection.execute(DEVICES.delete().where(DEVICES.c.name == name))

    def set_profile(self, name: str, profile: str | None) -> None:
        """Change the profile that a device is taken for. Raises UserError."""
        self.device(name)
        with self.write() as connection:
            connection.execute(DEVICES.update().where(DEVICES.c.name == name).values(profile=profile))


def _check_new(connection: sa.Connection, name: str) -> None:
    if not _NAME.fullmatch(name) or name == "local":
        what = "is the host itself" if name == "local" else "is no name for a device"
        raise UserError(f"device '{name}'", what, "choose letters, digits, '.', '-' and '_', as in 'cam-1'")
    if connection.execute(sa.select(DEVICES.c.url).where(DEVICES.c.name == name)).first():
        mend = f"choose another name or `edgelathe device remove {name}` first"
        raise UserError(f"device '{name}'", "is registered already", mend)

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
        """Register a device. Raises UserError for a name that is taken or could not be told from an address."""
        if not _NAME.fullmatch(target.name) or target.name == "local":
            what = "is the host itself" if target.name == "local" else "is no name for a device"
            raise UserError(f"device '{target.name}'", what, "choose letters, digits, '.', '-' and '_', as in 'cam-1'")
        with self.write() as connection:
            if connection.execute(sa.select(DEVICES.c.url).where(DEVICES.c.name == target.name)).first():
                mend = f"choose another name or `edgelathe device remove {target.name}` first"
                raise UserError(f"device '{target.name}'", "is registered already", mend)
            connection.execute(DEVICES.insert().values(asdict(target)))

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

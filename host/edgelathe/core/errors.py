"""What can go wrong, as values: where, what and mend in one line; the class carries the exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class EdgelatheError(Exception):
    """An error that a user can read: `WHERE: WHAT; MEND`.

    Args:
        where: file, field, device or option at fault.
        what: what is wrong there, with the values seen.
        mend: what to do about it.
    """

    code: ClassVar[int] = 4

    def __init__(self, where: object, what: str, mend: str) -> None:
        self.where, self.what, self.mend = str(where), what, mend
        super().__init__(self.where, what, mend)

    def __str__(self) -> str:
        return " ".join(f"{self.where}: {self.what}; {self.mend}".split())


class UserError(EdgelatheError):
    """Bad usage or bad input (exit code 2)."""

    code = 2


class DeviceError(EdgelatheError):
    """A device that cannot be reached, or whose agent failed (exit code 3)."""

    code = 3


class HostError(EdgelatheError):
    """A failure on the host that is neither the user's nor a device's (exit code 4)."""

    code = 4


class Interrupted(EdgelatheError):  # noqa: N818  # no error
    """Stopped by the user; what was finished is kept (exit code 130)."""

    code = 130


def nearest(word: str, choices: Iterable[str], otherwise: str = "") -> str:
    """`did you mean 'size'?` for the closest of `choices`, else the list of them (or `otherwise`)."""
    names = sorted(choices)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return otherwise or "choose from " + ", ".join(names)

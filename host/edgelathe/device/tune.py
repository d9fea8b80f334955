"""A quieter device for as long as something is measured: governor and jetson_clocks, put back whatever happens."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edgelathe.core.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgelathe.device.client import AgentClient


class Tunable(Protocol):
    """What `tuned` takes of a device."""

    @property
    def client(self) -> AgentClient:
        """The agent."""


@dataclass(frozen=True)
class Change:
    """A setting of the device: before, now, and why it could not be changed (with what to run there), else ""."""

    what: str
    was: str
    is_: str
    why: str = ""

    def __str__(self) -> str:
        moved = "" if self.was == self.is_ else f" {self.was} -> {self.is_}"
        return f"{self.what}:{moved}" + (f" {self.why}" if self.why else "")


@dataclass(frozen=True)
class Tuning:
    """What was changed, and what could not be."""

    changed: tuple[Change, ...]
    refused: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        """{"changed", "refused"}: [{"what", "was", "is", "why"}]."""
        return {
            key: [{("is" if k == "is_" else k): v for k, v in asdict(c).items()} for c in getattr(self, key)]
            for key in ("changed", "refused")
        }


def tune(client: AgentClient, *, keep: bool = False, seconds: float = 0.0) -> Tuning:
    """Make the device quieter until the connection ends or, with `keep`, for `seconds` although it ends."""
    return _tuning(client.request("tune", {"on": True, "keep": keep, "seconds": seconds}).head)


def restore(client: AgentClient, *, force: bool = False) -> Tuning:
    """Put the device back as it was; `force`: although other connections hold it tuned."""
    return _tuning(client.request("tune", {"on": False, "keep": force, "seconds": 0.0}).head)


@contextmanager
def tuned(device: Tunable) -> Iterator[Tuning]:
    """Tune the device for the length of a `with`; gives what was changed. The device itself restores when we die."""
    done = tune(device.client)
    try:
        yield done
    except BaseException:
        if device.client.usable:
            with suppress(DeviceError):  # what went wrong first is to be told; the device's guard restores anyway
                restore(device.client)
        raise
    else:
        if device.client.usable:
            restore(device.client)


@contextmanager
def quiet(device: Tunable, say: Callable[[str], None], *, wanted: bool) -> Iterator[None]:
    """Where it is wanted, tune the device for the length of a `with`; say what was changed and what could not be."""
    if not wanted:
        yield
        return
    with tuned(device) as tuning:
        for change in (*tuning.changed, *tuning.refused):
            say(f"{'!' if change.why else '✓'} {change}")
        if not (tuning.changed or tuning.refused):
            say("the device has nothing to tune")
        yield


def _tuning(head: Mapping[str, Any]) -> Tuning:
    def changes(key: str) -> tuple[Change, ...]:
        return tuple(Change(*(str(c.get(k) or "") for k in ("what", "was", "is", "why"))) for c in head[key])

    return Tuning(changes("changed"), changes("refused"))

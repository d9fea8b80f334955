"""In the child: say what a long request is at; the agent passes it on to the host, with the seconds that it takes."""

from __future__ import annotations

from typing import Callable

_listener: Callable[[str], None] = lambda what: None  # noqa: E731


def listen(listener: Callable[[str], None]) -> None:
    """Whom to tell from now on."""
    global _listener  # noqa: PLW0603 - one process runs one model
    _listener = listener


def say(what: str) -> None:
    """Such as "building an engine for this device"; does nothing where nobody listens."""
    _listener(what)

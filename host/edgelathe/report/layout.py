"""Tables that suit the width of the terminal: names are shortened first, then a narrower layout is taken."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table

#: A table whose names have at most so many characters.
Layout = Callable[[int], RenderableType]

#: Fewest characters of a name by which it can still be told from others.
LEAST = 16
#: Wider than any table: what a renderable would like to have is measured in it.
_BOUNDLESS = 100_000


def shortened(name: str, most: int) -> str:
    """A name in at most so many characters.

    Converters make layer names of hundreds of characters, and most differ at their ends: two thirds of what is left are
    the end.
    """
    if len(name) <= most:
        return name
    start = (most - 1) // 3
    return f"{name[:start]}…{name[len(name) - (most - 1 - start) :]}"


class Fitted:
    """The first layout that fits, if need be with shorter names; where none does the last one, which then folds.

    Args:
        names: the longest one sets how many characters there are to save.
        layouts: widest first.
        most: characters of a name, however wide the terminal is.
    """

    def __init__(self, names: Sequence[str], *layouts: Layout, most: int = _BOUNDLESS) -> None:
        self._longest = min(most, max(map(len, names), default=0))
        self._layouts = layouts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich."""
        least = min(self._longest, LEAST)
        for layout in self._layouts:
            whole = layout(self._longest)
            excess = self._width(console, options, whole) - options.max_width
            if excess <= 0:
                yield whole
                return
            if self._longest - excess >= least:
                yield layout(self._longest - excess)
                return
        last = self._layouts[-1](least)
        yield _folded(console, options, last) if isinstance(last, Table) else last

    @staticmethod
    def _width(console: Console, options: ConsoleOptions, what: RenderableType) -> int:
        return Measurement.get(console, options.update(max_width=_BOUNDLESS), what).maximum


def tidy(made: Table) -> Fitted:
    """A table as it is: where it is too wide those of its columns fold that may, and all where that is not enough."""
    return Fitted((), lambda _: made)


def broken(recipe: str, most: int) -> str:
    """A recipe in lines of about so many characters, broken behind a `+`."""
    lines = [""]
    for step in re.split(r"(?<=\+)", recipe):
        if lines[-1] and len(lines[-1]) + len(step) > most:
            lines.append("")
        lines[-1] += step
    return "\n".join(lines)


def _folded(console: Console, options: ConsoleOptions, made: Table) -> Table:
    """With widths set so that columns fold between words; where there is no room for that all may break anywhere."""
    wide = options.update(max_width=_BOUNDLESS)
    reach = [
        Measurement(max(c.minimum for c in cells), max(c.maximum for c in cells))
        for column in made.columns
        for cells in [[Measurement.get(console, wide, cell) for cell in (column.header, *column.cells)]]
    ]
    least = sum(m.maximum if c.no_wrap else m.minimum for c, m in zip(made.columns, reach, strict=True))
    spare = options.max_width - least - made.padding[1] * (len(made.columns) - 1)
    wished = sum(m.span for c, m in zip(made.columns, reach, strict=True) if not c.no_wrap)
    for column, m in zip(made.columns, reach, strict=True):
        if spare < 0:
            column.no_wrap = False  # or digits would be cut off
        elif not column.no_wrap:
            column.width = m.minimum + spare * m.span // max(1, wished)
    return made

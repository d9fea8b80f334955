"""The keys of a profile file: a row per key says what it takes and how a wrong value is explained."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from edgelathe.core import recipe
from edgelathe.core.errors import UserError, nearest
from edgelathe.core.profile_types import DTYPES, FEATURES, FORMATS, RUNTIMES
from edgelathe.core.provider_options import ENTRIES, OPTIONS, OURS, PROVIDER


class Mistake(NamedTuple):
    """Where in the file (`runtime[0].threads`; empty: the file itself), what, and the mend.

    `warning`: the profile can be used all the same.
    """

    at: str
    what: str
    mend: str
    warning: bool = False


#: Mistakes of one value; the second argument is the table that the key stands in.
Check = Callable[[Any, Mapping[str, Any]], Iterator[Mistake]]

_MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?(KiB|MiB|GiB|kB|MB|GB)")
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "a table"}


def memory_bytes(text: str) -> int:
    """Bytes of a size such as `512 MiB`. Raises ValueError for another form."""
    match = _MEMORY.fullmatch(text)
    if not match:
        raise ValueError(text)
    return round(float(match[1]) * _UNITS[match[2]])


def _kind(value: Any) -> str:
    return _WORDS.get(type(value), type(value).__name__)


def _text(value: Any, _: Mapping[str, Any]) -> Iterator[Mistake]:
    if not isinstance(value, str):
        yield Mistake("", f"wanted text, found {_kind(value)}: {value!r}", 'write it in quotes, as in "aarch64"')
    elif not value.strip():
        yield Mistake("", "is empty", "fill it or leave the key out")


def _count(value: Any, _: Mapping[str, Any]) -> Iterator[Mistake]:
    if isinstance(value, bool) or not isinstance(value, int):
        yield Mistake("", f"wanted a whole number, found {_kind(value)}: {value!r}", "write it without quotes, as in 4")
    elif not 1 <= value <= 1024:
        yield Mistake("", f"{value} is out of range", "give 1 to 1024")


def _memory(value: Any, _: Mapping[str, Any]) -> Iterator[Mistake]:
    mend = 'give a number and a unit, as in "512 MiB" or "4 GiB"'
    if not isinstance(value, str):
        yield Mistake("", f"wanted text, found {_kind(value)}: {value!r}", mend)
    elif not _MEMORY.fullmatch(value) or not memory_bytes(value):
        yield Mistake("", f"'{value}' is no size", mend)


def _each(check: Check) -> Check:
    """A list, each of whose items `check` likes, none twice."""

    def listed(value: Any, table: Mapping[str, Any]) -> Iterator[Mistake]:
        if not isinstance(value, list):
            yield Mistake("", f"wanted a list, found {_kind(value)}: {value!r}", 'write it in brackets, as in ["int8"]')
            return
        for i, item in enumerate(value):
            for m in check(item, table):
                yield Mistake(f"[{i}]{m.at}", m.what, m.mend)
            if item in value[:i]:
                yield Mistake(f"[{i}]", f"{item!r} stands there twice", "remove one")

    return listed


def _one_of(what: str, choices: Iterator[str] | tuple[str, ...] | Mapping[str, Any]) -> Check:
    known = tuple(choices)

    def chosen(value: Any, table: Mapping[str, Any]) -> Iterator[Mistake]:
        if not isinstance(value, str):
            yield from _text(value, table)
        elif value not in known:
            yield Mistake("", f"unknown {what} '{value}'", nearest(value, known))

    return chosen


def _expression(value: Any, table: Mapping[str, Any]) -> Iterator[Mistake]:
    yield from _text(value, table)
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as e:
            yield Mistake("", f"'{value}' is no regular expression: {e}", "quote special characters with a backslash")


def _recipe(value: Any, table: Mapping[str, Any]) -> Iterator[Mistake]:
    if not isinstance(value, str):
        yield from _text(value, table)
        return
    try:
        recipe.parse(value)
    except UserError as e:
        yield Mistake("", f"{e.where}: {e.what}", e.mend)


def _recipes(value: Any, _: Mapping[str, Any]) -> Iterator[Mistake]:
    if not isinstance(value, dict):
        yield Mistake(
            "", f"wanted a table, found {_kind(value)}: {value!r}", 'write [recipes] and onnx = ["int8"] below it'
        )
        return
    for format, texts in value.items():
        if format not in FORMATS:
            yield Mistake("", f"unknown format '{format}'", nearest(format, FORMATS))
            continue
        for m in _each(_recipe)(texts, value):
            yield Mistake(f".{format}{m.at}", m.what, m.mend)


def _provider(value: Any, table: Mapping[str, Any]) -> Iterator[Mistake]:
    yield from _text(value, table)
    runtime = table.get("name")
    if isinstance(value, str) and isinstance(runtime, str) and runtime in RUNTIMES:
        known = RUNTIMES[runtime][1]
        if value not in known:
            yield Mistake("", f"unknown provider '{value}' of {runtime}", nearest(value, known))


def _config(value: Any, table: Mapping[str, Any]) -> Iterator[Mistake]:
    if not isinstance(value, dict):
        yield Mistake("", f"wanted a table, found {_kind(value)}: {value!r}", 'write config = { "entry" = "value" }')
        return
    for entry, setting in value.items():
        if isinstance(setting, dict):
            mend = f'put the whole name in quotes, as in "{entry}.{next(iter(setting), "name")}"'
            yield Mistake(f".{entry}", "wanted text, found a table", mend)
        elif not isinstance(setting, str):
            mend = 'session entries are text: write "1" with quotes'
            yield Mistake(f".{entry}", f"wanted text, found {_kind(setting)}: {setting!r}", mend)
        elif entry.startswith(PROVIDER):
            yield from _provider_option(entry, str(table.get("provider")))
        elif entry.startswith(OURS):
            yield from _own_entry(entry, setting, str(table.get("name")))


def _provider_option(entry: str, provider: str) -> Iterator[Mistake]:
    known = OPTIONS.get(provider)
    name = entry.removeprefix(PROVIDER)
    if known is not None and name not in known:
        mend = nearest(name, known) if known else "it takes none"
        yield Mistake(f".{entry}", f"{provider} has no option '{name}' that is known here", mend, warning=True)


def _own_entry(entry: str, setting: str, runtime: str) -> Iterator[Mistake]:
    known = ENTRIES.get(runtime, {})
    name = entry.removeprefix(OURS)
    if name not in known:
        mend = nearest(name, known) if known else "leave it out"
        yield Mistake(f".{entry}", f"unknown entry '{entry}' of {runtime}", mend)
    elif setting not in known[name]:
        yield Mistake(f".{entry}", f"'{setting}' is no value of it", "one of " + ", ".join(known[name]))


def _runtimes(value: Any, _: Mapping[str, Any]) -> Iterator[Mistake]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        yield Mistake(
            "", f"wanted tables, found {_kind(value)}: {value!r}", 'write [[runtime]] and name = "onnxruntime" below it'
        )
    elif not value:
        yield Mistake("", "names no runtime", "write at least one [[runtime]] table")


KEYS: dict[str, Check] = {
    "extends": _text,
    "title": _text,
    "machine": _text,
    "match": _each(_expression),
    "threads": _count,
    "runtime": _runtimes,
    "features": _each(_one_of("feature", FEATURES)),
    "fast_dtypes": _each(_one_of("dtype", DTYPES)),
    "channel_multiple": _count,
    "memory": _memory,
    "sensors": _each(_text),
    "rails": _each(_text),
    "recipes": _recipes,
}

RUNTIME_KEYS: dict[str, Check] = {
    "name": _one_of("runtime", RUNTIMES),
    "provider": _provider,
    "threads": _count,
    "config": _config,
}

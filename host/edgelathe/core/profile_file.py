"""Profile files: TOML in, profiles out, and every mistake explained.

Packaged ones lie in `device_profiles`; the user's own in `$XDG_CONFIG_HOME/edgelathe/profiles` come first.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelathe.core.errors import UserError, nearest
from edgelathe.core.files import config_dir
from edgelathe.core.profile_fields import KEYS, RUNTIME_KEYS, Mistake, memory_bytes
from edgelathe.core.profile_types import Profile, RuntimeChoice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NEEDED = ("title", "runtime", "features", "fast_dtypes", "channel_multiple", "memory", "recipes")
_NOT_INHERITED = ("extends", "match")


@dataclass(frozen=True)
class Problem:
    """One mistake in a profile: the file and field, what is wrong there, how to mend it.

    `warning`: the profile can be used all the same.
    """

    where: str
    what: str
    mend: str
    warning: bool = False

    def __str__(self) -> str:
        return str(self.error())

    def error(self) -> UserError:
        """The same as an exception."""
        return UserError(self.where, self.what, self.mend)


def names() -> list[str]:
    """Profiles that can be named: packaged ones and those of the user's profiles folder, sorted."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.toml")})


def load(name_or_path: str | Path) -> Profile:
    """A profile by name, or from a path that ends in `.toml`. Raises UserError with its first mistake."""
    path, shown = _locate(name_or_path)
    merged, problems = _read(path, shown, ())
    for problem in problems:
        if not problem.warning:
            raise problem.error()
    return _build(path, merged)


def check(name_or_path: str | Path) -> list[Problem]:
    """Every mistake of a profile and of those that it extends. Raises UserError where there is no such file."""
    path, shown = _locate(name_or_path)
    return _read(path, shown, ())[1]


def recipes(name_or_path: str | Path) -> dict[str, list[str]]:
    """The recipe texts of a profile by model format, as far as they can be read beside other mistakes."""
    path, shown = _locate(name_or_path)
    found = _read(path, shown, ())[0].get("recipes")
    lists = found.items() if isinstance(found, dict) else ()
    return {str(k): [t for t in v if isinstance(t, str)] for k, v in lists if isinstance(v, list)}


def _folders() -> list[Path]:
    """Where profiles are looked up: the user's folder, then the packaged one."""
    package = Path(str(package_files("edgelathe")))
    # a wheel holds the profiles inside the package; a development install has them beside the sources
    packaged = package / "device_profiles"
    return [config_dir() / "profiles", packaged if packaged.is_dir() else package.parents[1] / "device_profiles"]


def _locate(name_or_path: str | Path) -> tuple[Path, str]:
    """The file, and how messages call it."""
    text = str(name_or_path)
    path = Path(text) if text.endswith(".toml") else _find(text)
    if path is None:
        raise UserError(f"profile '{text}'", "there is none of that name", nearest(text, names()))
    if not path.is_file():
        raise UserError(text, "no such file", "name a profile of `edgelathe profiles list`, or check the path")
    return path, text if text.endswith(".toml") else str(path)


def _find(name: str, but: Path | None = None) -> Path | None:
    """The first profile of that name that is not the file `but`; a user's `x.toml` may so extend the packaged `x`."""
    found = (folder / f"{name}.toml" for folder in _folders())
    return next((p for p in found if p.is_file() and not (but and but.exists() and p.samefile(but))), None)


def _read(path: Path, shown: str, below: tuple[Path, ...]) -> tuple[dict[str, Any], list[Problem]]:
    """One file laid over those that it extends, with the mistakes of all; `below` are those that extend this one."""
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        return {}, [Problem(shown, f"cannot be read ({e.strerror})", "check the path and its permissions")]
    except ValueError as e:  # no TOML, or no UTF-8
        return {}, [Problem(shown, f"not TOML: {e}", "see docs/profiles.md for the form")]
    problems = [_problem(shown, m) for m in _mistakes(own)]
    base: dict[str, Any] = {}
    if isinstance(own.get("extends"), str):
        base, more = _base(own["extends"], path, shown, (*below, path))
        problems += more
    if isinstance(own.get("recipes"), dict) and isinstance(base.get("recipes"), dict):
        own["recipes"] = {**base["recipes"], **own["recipes"]}
    merged = {**{k: v for k, v in base.items() if k not in _NOT_INHERITED}, **own}
    if not below and all(p.warning for p in problems):
        mend = "give it, or extend a profile that has it"
        problems += [Problem(shown, f"key '{key}' is missing", mend) for key in _NEEDED if key not in merged]
    return merged, problems


def _base(name: str, path: Path, shown: str, below: tuple[Path, ...]) -> tuple[dict[str, Any], list[Problem]]:
    """What `extends = name` in the file `path` stands for: a profile's name, or a file seen from `path`."""
    where = f"{shown}: extends"
    found = path.parent / name if name.endswith(".toml") else _find(name, but=path)
    if found is None:
        return {}, [Problem(where, f"there is no profile '{name}'", nearest(name, names()))]
    if not found.is_file():
        return {}, [Problem(where, f"there is no file '{found}'", "name a profile, or a file seen from this one")]
    if any(found.samefile(p) for p in below):
        chain = " -> ".join(p.stem for p in (*below, found))
        return {}, [Problem(where, f"goes round in a circle ({chain})", "let one of them extend none of the others")]
    return _read(found, str(found), below)


def _mistakes(own: Mapping[str, Any]) -> Iterator[Mistake]:
    """Mistakes of one file, whatever it extends."""
    yield from _table(own, KEYS, "")
    runtimes = own.get("runtime")
    for i, entry in enumerate(runtimes if isinstance(runtimes, list) else ()):
        if isinstance(entry, dict):
            yield from _table(entry, RUNTIME_KEYS, f"runtime[{i}]")
            missing = [key for key in ("name", "provider") if key not in entry]
            yield from (Mistake(f"runtime[{i}]", f"key '{key}' is missing", "give it") for key in missing)


def _table(table: Mapping[str, Any], keys: Mapping[str, Any], at: str) -> Iterator[Mistake]:
    for key, value in table.items():
        if key not in keys:
            yield Mistake(at, f"unknown key '{key}'", nearest(key, keys))
            continue
        for m in keys[key](value, table):
            yield m._replace(at=".".join(filter(None, (at, key + m.at))))


def _problem(shown: str, m: Mistake) -> Problem:
    return Problem(f"{shown}: {m.at}" if m.at else shown, m.what, m.mend, m.warning)


def _build(path: Path, doc: Mapping[str, Any]) -> Profile:
    threads = doc.get("threads", 1)
    return Profile(
        name=path.stem,
        title=doc["title"],
        machine=doc.get("machine"),
        match=tuple(doc.get("match", ())),
        runtimes=tuple(
            RuntimeChoice(r["name"], r["provider"], r.get("threads", threads), r.get("config", {}))
            for r in doc["runtime"]
        ),
        features=frozenset(doc["features"]),
        fast_dtypes=tuple(doc["fast_dtypes"]),
        channel_multiple=doc["channel_multiple"],
        memory_bytes=memory_bytes(doc["memory"]),
        sensors=tuple(doc.get("sensors", ())),
        rails=tuple(doc.get("rails", ())),
        recipes={format: tuple(texts) for format, texts in doc["recipes"].items()},
        path=str(path),
    )

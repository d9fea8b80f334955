"""The result folder of a fit: five files that appear together or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelathe.core.errors import HostError, UserError
from edgelathe.report.document import dumps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODELS = ("model.onnx", "model.tflite", "model.onnx.data")
OURS = frozenset({*MODELS, "recipe.toml", "result.json", "report.html", "junit.xml"})
PART = ".edgelathe-part"  # ends the names of files that are not finished


def check_folder(folder: Path | str, force: bool = False) -> None:
    """Make sure, before a long run, that results can be written there. Raises UserError where they cannot."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(folder, "is a file", "name a folder with -o")
    try:
        found = sorted(p.name for p in folder.iterdir()) if folder.exists() else []
    except OSError as e:
        raise UserError(folder, f"cannot be read ({e.strerror})", "name another folder with -o") from e
    others = [name for name in found if name not in OURS and not name.endswith(PART)]
    if others and not force:
        raise UserError(folder, f"holds other files ('{others[0]}')", "name a new folder with -o, or add --force")
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError:
        raise UserError(folder, f"cannot be made in {there}", "name another folder with -o") from None


def write_results(
    folder: Path | str,
    *,
    model_bytes: bytes | None,
    model_suffix: str,
    recipe_toml: str | None,
    document: Mapping[str, Any],
    html: str,
    junit: str,
    force: bool = False,
) -> list[Path]:
    """Write the results of a fit; the paths written. What an earlier fit left and is not written now is removed.

    Model and recipe are None where nothing could be measured.
    After an error or an interrupt the folder is as it was before. Raises UserError (as `check_folder`) and HostError.
    """
    folder = Path(folder)
    check_folder(folder, force)
    model = f"model.{model_suffix.removeprefix('.')}"
    texts = {"report.html": html, "junit.xml": junit, "result.json": dumps(document) + "\n"}
    files = {name: text.encode() for name, text in texts.items()}
    if model_bytes is not None and recipe_toml is not None:
        files = {model: model_bytes, "recipe.toml": recipe_toml.encode(), **files}
    try:
        with _made(folder):
            _put(folder, files, remove=sorted(OURS - files.keys()))
    except OSError as e:
        what = f"cannot be written ({e.strerror})"
        raise HostError(
            e.filename or folder, what, "free some space or check the rights; the run is kept in the store"
        ) from e
    return [folder / name for name in files]


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder and its parents; those that were made are removed again when the block fails."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for made in missing:
            with suppress(OSError):
                made.rmdir()
        raise


def _put(folder: Path, files: Mapping[str, bytes], remove: list[str]) -> None:
    """Write all files beside their places, then move them there; on failure what was there before is moved back."""
    for left in folder.glob(f"*{PART}"):
        left.unlink()
    with ExitStack() as always:
        for name, data in files.items():
            part = folder / f".{name}{PART}"
            always.callback(part.unlink, missing_ok=True)
            _write(part, data)
        with ExitStack() as undo:
            for name in (*files, *remove):
                target, old = folder / name, folder / f".{name}.old{PART}"
                always.callback(old.unlink, missing_ok=True)
                undo.callback(_restore, target, old, target.exists())
                if target.exists():
                    target.rename(old)
                if name in files:
                    (folder / f".{name}{PART}").rename(target)
            undo.pop_all()


def _restore(target: Path, old: Path, was_there: bool) -> None:
    """Undo one name, at whichever of its two renames it stopped."""
    if old.exists():
        old.replace(target)
    elif not was_there:
        target.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())

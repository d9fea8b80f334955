"""Stored samples as they are: `.npz`, `.npy`, folders of images per class, `.csv` of file and label."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, overload

import numpy as np

from edgelathe.core.errors import UserError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from edgelathe.core.dataset_types import Array

IMAGES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
KINDS = "an .npz, an .npy, a folder of images per class, a .csv of file and label, or a .toml"
PICKLE = "store plain numbers: np.savez(path, x=np.stack(list), y=labels)"


@dataclass(frozen=True)
class Stored:
    """What a path holds. `inputs` by array name ("" where it has none); images are decoded when they are asked for."""

    inputs: dict[str, Sequence[Array] | Array]
    labels: Array | None
    has_y: bool = False


class Files(Sequence["Array"]):
    """Images, or .npy files of one sample each, decoded one at a time: [h, w, 3] RGB, [h, w, 1] where all are gray."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.gray = all(p.suffix.lower() in IMAGES and _mode(p) in ("1", "L") for p in paths)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, at: int) -> Array: ...
    @overload
    def __getitem__(self, at: slice) -> Files: ...
    def __getitem__(self, at: int | slice) -> Array | Files:
        if isinstance(at, slice):
            return Files(self.paths[at])
        path = self.paths[at]
        return _npy(path) if path.suffix.lower() == ".npy" else _decode(path, gray=self.gray)


def read(path: Path, names: dict[str, str] | None = None, labels: str | None = "y") -> Stored:
    """What is stored at a path. `names` maps model inputs to arrays, `labels` names theirs. Raises UserError."""
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise UserError(path, "no such file or folder", "check the path")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _npz(path, names, labels)
    if suffix == ".npy":
        return Stored({"": _npy(path)}, None)
    if suffix == ".csv":
        return _csv(path)
    raise UserError(path, "not a dataset", f"give {KINDS}")


def _npz(path: Path, names: dict[str, str] | None, labels: str | None) -> Stored:
    with (
        path.open("rb") as file,
        _archive(path, file) as archive,
    ):  # a file of our own: np.load leaves its open on errors
        have = list(archive.files)
        y = _member(path, archive, labels) if labels in have else None
        if labels not in (None, "y") and y is None:
            raise UserError(path, f"no array '{labels}' for the labels", nearest(str(labels), have))
        if names is None:
            return Stored(dict(_inputs(path, archive, [n for n in have if n != (labels or "y")])), y, "y" in have)
        for array in names.values():
            if array not in have:
                raise UserError(path, f"no array '{array}'", nearest(array, have))
        return Stored({i: _member(path, archive, a) for i, a in names.items()}, y, "y" in have)


def _archive(path: Path, file: BinaryIO) -> np.lib.npyio.NpzFile:
    try:
        archive = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        archive = None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError(path, "not an .npz archive, or cut off", "write it with np.savez(path, x=..., y=...)")
    return archive


def _inputs(path: Path, archive: np.lib.npyio.NpzFile, names: list[str]) -> dict[str, Array]:
    """`x` and arrays of the same length (a model with several inputs may want them), or all arrays of numbers."""
    if "x" in names:
        x = _member(path, archive, "x")
        others = {n: a for n in names if n != "x" and (a := _number_array(archive, n)) is not None and len(a) == len(x)}
        return {"x": x, **others}
    arrays = {n: a for n in names if (a := _number_array(archive, n)) is not None}
    if not arrays:
        if any(_dtype(archive, n) is None for n in names):
            raise UserError(path, f"array '{names[0]}' holds Python objects (pickle), which are never loaded", PICKLE)
        raise UserError(
            path, f"no array 'x' (it has {', '.join(archive.files) or 'nothing'})", "name the inputs x and the labels y"
        )
    return arrays


def _member(path: Path, archive: np.lib.npyio.NpzFile, name: str | None) -> Array:
    try:
        array: Array = archive[str(name)]
    except ValueError as e:
        if "allow_pickle" in str(e):
            raise UserError(
                path, f"array '{name}' holds Python objects (pickle), which are never loaded", PICKLE
            ) from None
        raise UserError(path, f"array '{name}' is broken", "write the file again") from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error):
        raise UserError(path, f"array '{name}' is cut off or damaged", "copy or write the file again") from None
    return array


def _number_array(archive: np.lib.npyio.NpzFile, name: str) -> Array | None:
    """The array, or None where it holds no numbers or no samples."""
    try:
        array: Array = archive[name]
    except ValueError:
        return None
    return array if array.dtype.kind in "biuf" and array.ndim else None


def _dtype(archive: np.lib.npyio.NpzFile, name: str) -> str | None:
    try:
        return str(archive[name].dtype)
    except ValueError:
        return None


def _npy(path: Path) -> Array:
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except ValueError as e:
        if "allow_pickle" in str(e) and _magic(path) == b"\x93NUMPY":
            raise UserError(path, "it holds Python objects (pickle), which are never loaded", PICKLE) from None
        raise UserError(path, "not an .npy array, or cut off", "write it with np.save(path, x)") from None
    except (OSError, EOFError):
        raise UserError(path, "not an .npy array, or cut off", "write it with np.save(path, x)") from None
    if not isinstance(array, np.ndarray):
        raise UserError(path, "an archive of arrays, not one array", "call it .npz")
    return array


def _magic(path: Path) -> bytes:
    with path.open("rb") as f:
        return f.read(6)


def _folder(path: Path) -> Stored:
    """One folder per class: its number where all names are numbers, else its place in sorted order, from 0.

    Hidden files and folders are left out.
    """
    classes = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    numbered = all(p.name.isdecimal() for p in classes)
    files, labels = [], []
    for place, folder in enumerate(classes):
        number = int(folder.name) if numbered else place
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGES and not p.name.startswith("."))
        if not found:
            raise UserError(folder, "a class without an image", "put its images there, or remove the folder")
        files += found
        labels += [number] * len(found)
    if not files:
        raise UserError(path, "no folder of images in it", "make a folder per class and put its images there")
    return Stored({"": Files(files)}, np.asarray(labels, np.int64))


def _csv(path: Path) -> Stored:
    """Rows of file and label (or file alone); a first row whose file does not exist is the header."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as f:
            rows = [(i, [c.strip() for c in row]) for i, row in enumerate(csv.reader(f), 1) if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error, OSError):
        raise UserError(path, "not a text of comma-separated values", "write one line `file,label` a sample") from None
    if rows and not (path.parent / rows[0][1][0]).is_file():
        rows = rows[1:]  # a header; a missing file in a single line is told below
    if not rows:
        raise UserError(path, "no sample in it", "write one line `file,label` a sample; files are relative to it")
    width = len(rows[0][1])
    files, labels = [], []
    for line, row in rows:
        if len(row) != width or width > 2:
            raise UserError(
                f"{path}: line {line}", f"{len(row)} columns", "write `file,label`, or `file` alone, on every line"
            )
        files.append(path.parent / row[0])
        if not files[-1].is_file():
            raise UserError(f"{path}: line {line}", f"no file {row[0]}", "give paths relative to the .csv")
        if files[-1].suffix.lower() not in IMAGES | {".npy"}:
            raise UserError(
                f"{path}: line {line}", f"{row[0]} is no image", "give images, or .npy files of one sample each"
            )
        labels += [_label(row[1], f"{path}: line {line}")] if width == 2 else []
    values = np.asarray(labels) if labels else None
    if values is not None and all(isinstance(v, int) for v in labels):
        values = values.astype(np.int64)
    return Stored({"": Files(files)}, values)


def _label(text: str, where: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise UserError(where, f"label '{text}' is no number", "number the classes from 0")


def _mode(path: Path) -> str:
    with _opened(path) as image:
        return image.mode


def _decode(path: Path, *, gray: bool) -> Array:
    with _opened(path) as image:
        if image.mode.startswith(("I", "F")):
            raise UserError(path, "an image of more than 8 bits a channel", "store such data as arrays in an .npz")
        try:
            pixels = np.asarray(image.convert("L" if gray else "RGB"))
        except (OSError, SyntaxError, ValueError):
            raise UserError(path, "the image is cut off or damaged", "copy it again, or remove it") from None
    return pixels[..., None] if gray else pixels


def _opened(path: Path) -> Image:
    import PIL.Image

    try:
        return PIL.Image.open(path)
    except (OSError, PIL.Image.DecompressionBombError):  # an unidentified image is an OSError
        raise UserError(path, "not an image", "remove it, or copy it again") from None

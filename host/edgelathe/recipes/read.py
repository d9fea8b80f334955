"""A recipe from the command line: its text, or a TOML file."""

from __future__ import annotations

from pathlib import Path

from edgelathe.core import recipe as grammar
from edgelathe.core.errors import UserError
from edgelathe.core.recipe import Recipe


def read(text: str) -> Recipe:
    """The recipe in `text`, which is its text form or the path of a `.toml` file. Raises UserError."""
    if not text.endswith(".toml"):
        return grammar.parse(text)
    try:
        return grammar.from_toml(Path(text).read_text(encoding="utf-8"), text)
    except FileNotFoundError:
        raise UserError(text, "no such recipe file", "give a .toml file, or a recipe such as 'int8'") from None
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(text, f"cannot be read: {e}", "give a .toml recipe") from None


def where(text: str) -> str:
    """How messages name the recipe: the file, or the text in quotes."""
    return text if text.endswith(".toml") else f"recipe '{text}'"

from __future__ import annotations

from pathlib import Path

from edgelathe.recipes.reference import inserted, reference
from edgelathe.recipes.table import STEPS

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def test_the_page_says_what_the_table_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert inserted(text) == text, "stale: run `make docs`"


def test_every_step_is_described() -> None:
    text = reference()
    assert all(f"### `{name}`" in text for name in STEPS)

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


def test_the_readme_lists_every_step_with_the_formats_it_is_for() -> None:
    lines = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| step | ONNX | TFLite | what |") + 2
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines[start : lines.index("", start)]]
    listed = {
        name.strip("`"): {f for f, mark in (("onnx", onnx), ("tflite", tflite)) if mark} for name, onnx, tflite in rows
    }
    assert listed == {name: set(formats) for name, formats in STEPS.items()}

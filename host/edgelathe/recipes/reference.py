"""The reference of all steps and options as Markdown, from the table: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from edgelathe.recipes import options
from edgelathe.recipes.table import STEPS

BEGIN, END = "<!-- steps: begin -->", "<!-- steps: end -->"


def reference() -> str:
    """One section a step and format, one row an option."""
    parts = []
    for name, row in STEPS.items():
        for format, spec in row.items():
            parts += [
                f"### `{name}` for {format.upper() if format == 'onnx' else 'TFLite'}",
                "",
                f"{spec.text[0].upper()}{spec.text[1:]}.",
                "",
            ]
            rows = options.describe(spec.options)
            if rows:
                parts += ["| option | default | |", "|---|---|---|"]
                parts += [f"| `{option}` | {default} | {text} |" for option, default, text in rows]
                parts.append("")
    return "\n".join(parts)


def inserted(page: str) -> str:
    """A page with the reference between its markers."""
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{reference()}\n{END}{tail}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(inserted(page.read_text(encoding="utf-8")), encoding="utf-8")

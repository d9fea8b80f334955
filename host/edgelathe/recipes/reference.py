"""The reference of all steps and options as Markdown, from the table: `python -m edgelathe.recipes.reference`."""

from __future__ import annotations

from edgelathe.recipes import options
from edgelathe.recipes.table import STEPS


def reference() -> str:
    """One section a step and format, one row an option."""
    parts = []
    for name, row in STEPS.items():
        for format, spec in row.items():
            parts += [f"### `{name}` for {format.upper() if format == 'onnx' else 'TFLite'}", "", f"{spec.text}.", ""]
            rows = options.describe(spec.options)
            if rows:
                parts += ["| option | default | |", "|---|---|---|"]
                parts += [f"| `{option}` | {default} | {text} |" for option, default, text in rows]
                parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    print(reference())

"""Why a step changed answers, on a terminal: the worst layers, causes, and what to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from edgelathe.report import units

_WORST = 5


def explained(step: str, found: Mapping[str, Any]) -> Iterator[Text]:
    """One line on the whole model, one for each of the worst layers, one on what to try."""
    parts = [] if found["changed"] is None else [f"{found['changed']} of {found['n']} answers changed"]
    if found["accuracy"] is not None and found["accuracy"]["drop"] is not None:
        a = found["accuracy"]
        parts.append(f"loss {units.drop(a['metric'], a['drop'], a['drop_low'], a['drop_high'])}")
    parts.append("output not finite" if found["sqnr_db"] is None else f"output {_db(found['sqnr_db'])}")
    style = "bold red" if found["chance"] else "bold"
    yield Text(f"after {step}: {', '.join(parts)}{' · fell to chance' if found['chance'] else ''}", style)
    for layer in found["layers"][:_WORST]:
        yield Text(f"  {_db(layer['sqnr_db'])}   {layer['layer']}" + "".join(f" · {c}" for c in layer["causes"]))
    if len(found["layers"]) > _WORST:
        rest = found["layers"][_WORST:]
        yield Text(f"  {_db(rest[0]['sqnr_db'])} or better: {len(rest)} more layers", "dim")
    for text in found["tries"][:_WORST]:
        yield Text(f"  try {text}")


def _db(value: float) -> str:
    return "exact" if value >= 200 else f"{value:.1f} dB"

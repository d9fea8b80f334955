"""Power and energy of the machine, from what the kernel shows."""

from __future__ import annotations

from typing import Any, Dict, List, Optional


class Meter:
    """Reads the named sensors each time `take` is called; `interval`: seconds between readings, 0 for no sensor."""

    def __init__(self, root: str, labels: List[str]) -> None:
        self.interval = 0.0

    def take(self) -> None:
        """One reading of each sensor."""

    def readings(self) -> Optional[List[Dict[str, Any]]]:
        """[{"label", "kind", "unit", "t_ns", "values"}]; None where no sensor was named."""
        return None

"""Make the machine quieter, and put it back as it was."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

Changes = Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]


def apply(root: str, agent_root: str, *, keep: bool, seconds: float) -> Changes:
    """(changed, refused)"""
    return [], []


def restore(root: str, agent_root: str) -> Changes:
    """(changed, refused)"""
    return [], []

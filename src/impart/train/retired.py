"""Names of earlier versions, which configs and run folders may still have: refused, with the new name.

Example:
    >>> retired_names({"regime": "lit", "lit": {"ema": 0.9}})
    ['mode instead of regime', "mode = 'heads' instead of 'lit'", '[heads] instead of [lit]']
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["RETIRED", "retired_names"]

RETIRED: dict[str, dict[str, str]] = {
    "setting": {"regime": "mode", "data.validation_pictures": "data.validation_images"},
    "mode": {"lit": "heads", "full": "pretrain"},
    "table": {"lit": "heads", "full": "pretrain"},
    "config": {
        "lit_clip": "heads_clip",
        "lit_gated": "heads_gated",
        "lit_normalised": "heads_normalised",
        "lit_paper": "heads_paper",
        "full_tiny": "pretrain_tiny",
        "full_vit_b_32": "pretrain_vit_b_32",
    },
}
"""New name by old name, for each kind: settings, training modes, tables, bundled configs."""


def retired_names(table: Mapping[str, Any]) -> list[str]:
    """Find the retired names of a config's nested tables; each is reported with its new name."""
    found = []
    for old, new in RETIRED["setting"].items():
        parent, _, leaf = old.rpartition(".")
        holder = table.get(parent) if parent else table
        if isinstance(holder, Mapping) and leaf in holder:
            found.append(f"{new} instead of {old}")
    mode = table.get("mode", table.get("regime"))
    if isinstance(mode, str) and mode in RETIRED["mode"]:
        found.append(f"mode = {RETIRED['mode'][mode]!r} instead of {mode!r}")
    return found + [f"[{new}] instead of [{old}]" for old, new in RETIRED["table"].items() if old in table]

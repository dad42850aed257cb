"""Keys and units of the labels of a source, from the settings of a run. Needs no torch."""

from __future__ import annotations

from grace_md.training.config import LabelSettings
from grace_md.training.data import LabelKeys

__all__ = ["label_keys_of"]


def label_keys_of(source: LabelSettings, defaults: LabelSettings) -> LabelKeys:
    """Return the keys and units of a source: its own, else those of the section `data`, else the usual ones."""
    found: dict[str, str | None] = {}
    for name in ("energy", "forces", "stress", "virial"):
        key = getattr(source, f"{name}_key") or getattr(defaults, f"{name}_key")
        if key is not None:
            found[name] = None if key == "none" else key
        unit = getattr(source, f"{name}_unit") or getattr(defaults, f"{name}_unit")
        if unit is not None:
            found[f"{name}_unit"] = unit
    for name, target in (("stress_order", "stress_order"), ("group_key", "group"), ("config_type_key", "config_type")):
        value = getattr(source, name) or getattr(defaults, name)
        if value is not None:
            found[target] = value
    return LabelKeys(**found)  # type: ignore[arg-type]

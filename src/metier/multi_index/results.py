"""Results as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np


class Plain:
    """A frozen result whose `to_dict` gives its fields, and what else it names, as plain values."""

    __slots__ = ()
    _hidden: ClassVar[tuple[str, ...]] = ()
    _more: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values: arrays as lists; nan and inf stay floats."""
        names = [field.name for field in fields(self) if field.name not in self._hidden]  # type: ignore[arg-type]
        return {name: _plain(getattr(self, name)) for name in (*names, *self._more)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.to_dict() if isinstance(value, Plain) else value

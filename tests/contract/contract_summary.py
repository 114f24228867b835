"""Values as JSON: numbers in full, arrays by shape, ends, sum and norm, prose and paths masked.

What a person reads is no contract: a text with a space in it becomes "<prose>".
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import types
import zlib
from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np
from contract_names import public_types

PROSE, PATH = "<prose>", "<path>"
WHOLE, ENDS = 8, 3
"""Longest array that is frozen whole, and how many entries of either end are frozen of a longer one."""
READ_BY_PEOPLE = frozenset(
    (
        *("statement", "source", "minimum_effect", "unit", "needed_unit", "method", "reason"),
        *("title", "text", "caption", "alt", "label", "note", "sentence", "question", "description"),
        *("x_label", "y_label", "value_label", "category_label", "provenance"),
        *("message", "rule", "expected", "got", "next_step"),
    )
)
"""Fields and keys whose texts are wording, even where it is one word."""
DEEPEST = 5
MOST_ITEMS = 24


def summary(value: Any, depth: int = 0) -> Any:
    """Return a JSON value that describes `value`."""
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    if isinstance(value, enum.Enum):
        return summary(value.value, depth)
    if isinstance(value, str):
        return text(value)
    if isinstance(value, int | np.integer):
        return int(value) if abs(int(value)) < 2**53 else str(int(value))
    if isinstance(value, float | np.floating):
        return number(float(value))
    if isinstance(value, complex | Fraction):
        return str(value)
    if isinstance(value, datetime.date | datetime.datetime):
        return value.isoformat()
    if isinstance(value, PurePath):
        return PATH
    if isinstance(value, np.ndarray):
        return array(value)
    if depth > DEEPEST:
        return "<deeper>"
    for describe in (_tensor, _table, _record, _mapping, _sequence, _object):
        found = describe(value, depth)
        if found is not None:
            return found
    return {"$": "object", "type": _type_name(value)}


def number(value: float) -> float | str:
    """Return a float; what JSON cannot hold as text."""
    return value if math.isfinite(value) else str(value)


def text(value: str) -> str:
    """Return a code as it is, prose and paths masked."""
    if any(letter.isspace() for letter in value):
        return PROSE
    return PATH if value.startswith("/") and len(value) > 1 else value


def array(value: np.ndarray, dtype: str | None = None) -> dict[str, Any]:
    """Describe an array: short ones whole, long ones by their ends, sum and norm."""
    flat = value.ravel()
    found: dict[str, Any] = {"$": "array", "dtype": dtype or str(value.dtype), "shape": list(value.shape)}
    if value.dtype.kind not in "biufc":
        items = [text(str(item)) for item in flat.tolist()]
        if len(items) <= WHOLE:
            return found | {"values": items}
        checksum = zlib.crc32("\n".join(items).encode())
        return found | {"first": items[:ENDS], "last": items[-ENDS:], "crc": checksum}
    if value.dtype.kind == "c":
        flat = np.concatenate([flat.real, flat.imag])
    plain = [summary(item) for item in flat[:WHOLE].tolist()] if flat.size <= WHOLE else None
    if plain is not None:
        return found | {"values": plain}
    ends = {"first": flat[:ENDS], "last": flat[-ENDS:]}
    found |= {name: [summary(item) for item in part.tolist()] for name, part in ends.items()}
    if value.dtype.kind in "biu":
        return found | {"sum": int(flat.sum(dtype=object))}
    finite = flat[np.isfinite(flat)].astype(np.float64)
    if finite.size < flat.size:
        found["finite"] = int(finite.size)
    # math.fsum is exact: the same on every processor.
    return found | {"sum": math.fsum(finite), "norm": math.sqrt(math.fsum(finite * finite))}


def _type_name(value: Any) -> str | None:
    kind = type(value)
    if kind in public_types():
        return public_types()[kind]
    return None if kind.__module__.split(".")[0] in ("metier", "metier_studies") else kind.__name__


def _tensor(value: Any, depth: int) -> Any:
    root = type(value).__module__.split(".")[0]
    if root == "torch":
        import torch

        if isinstance(value, torch.Tensor):
            plain = value.detach().cpu()
            plain = plain.float() if plain.dtype == torch.bfloat16 else plain
            return array(plain.numpy(), str(value.dtype))
        if isinstance(value, torch.nn.Module):
            return _module(value, depth)
        if isinstance(value, torch.dtype | torch.device | torch.Size):
            return str(value) if not isinstance(value, torch.Size) else list(value)
    if root in ("jax", "jaxlib") and hasattr(value, "dtype"):
        import jax

        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            return array(np.asarray(jax.random.key_data(value)), "key")
        return array(np.asarray(value), f"jax.{value.dtype}")
    return None


def _module(value: Any, depth: int) -> Any:
    state = {name: summary(tensor, depth + 1) for name, tensor in value.state_dict().items()}
    return {"$": "object", "type": _type_name(value), "fields": {"state_dict": state}}


def _table(value: Any, depth: int) -> Any:
    root = type(value).__module__.split(".")[0]
    if root not in ("polars", "pandas") or type(value).__name__ != "DataFrame":
        return None
    columns = {str(name): array(np.asarray(value[name]), str(value[name].dtype)) for name in value.columns}
    return {"$": "table", "of": root, "rows": len(value), "columns": columns}


def _record(value: Any, depth: int) -> Any:
    if isinstance(value, type):
        return {"$": "class", "name": public_types().get(value)}
    if hasattr(value, "_asdict"):
        fields = value._asdict()
    elif dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    elif hasattr(type(value), "model_fields"):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
    else:
        return None
    return _fields(value, fields | _properties(value), depth)


def _object(value: Any, depth: int) -> Any:
    if type(value).__module__.split(".")[0] not in ("metier", "metier_studies"):
        return None
    return _fields(value, dict(getattr(value, "__dict__", {})) | _properties(value), depth)


def _fields(value: Any, fields: Mapping[str, Any], depth: int) -> Any:
    shown = {
        name: field for name, field in fields.items() if not name.startswith("_") and not _is_code(field)
    }
    described = {name: _named(name, field, depth) for name, field in sorted(shown.items())}
    return {"$": "object", "type": _type_name(value), "fields": described}


def _named(name: Any, value: Any, depth: int) -> Any:
    return PROSE if name in READ_BY_PEOPLE and isinstance(value, str) else summary(value, depth + 1)


def _is_code(value: Any) -> bool:
    return isinstance(value, types.FunctionType | types.MethodType | types.BuiltinFunctionType)


def _properties(value: Any) -> dict[str, Any]:
    """Values of the public properties of metier's own classes; one that raises counts by its error."""
    found: dict[str, Any] = {}
    for kind in type(value).__mro__:
        if kind.__module__.split(".")[0] not in ("metier", "metier_studies"):
            continue
        for name, member in vars(kind).items():
            if name.startswith("_") or name in found or not isinstance(member, property | cached_property):
                continue
            try:
                found[name] = getattr(value, name)
            except Exception as error:
                found[name] = f"raises:{_type_name(error)}"
    return found


def _mapping(value: Any, depth: int) -> Any:
    if not isinstance(value, Mapping):
        return None
    # In an order of their own: safetensors gives its arrays in another one each time.
    items = sorted(value.items(), key=lambda item: str(item[0]))
    found = {_key(key, k): _named(key, item, depth) for k, (key, item) in enumerate(items[:MOST_ITEMS])}
    return found | ({"$length": len(items)} if len(items) > MOST_ITEMS else {})


def _key(key: Any, position: int) -> str:
    return f"{PROSE}-{position}" if isinstance(key, str) and text(key) == PROSE else str(key)


def _sequence(value: Any, depth: int) -> Any:
    if isinstance(value, set | frozenset):
        return [text(item) for item in sorted(map(str, value))]
    if isinstance(value, bytes):
        return {"$": "bytes"}
    if not isinstance(value, list | tuple):
        return None
    items = list(value)
    if len(items) > WHOLE and all(isinstance(item, int | float) for item in items):
        kind = "int" if all(isinstance(item, int) for item in items) else "float"
        return array(np.asarray(items), kind)
    if len(items) <= MOST_ITEMS:
        return [summary(item, depth + 1) for item in items]
    shown = [*items[:ENDS], *items[-ENDS:]]
    return {"$": "list", "length": len(items), "ends": [summary(item, depth + 1) for item in shown]}

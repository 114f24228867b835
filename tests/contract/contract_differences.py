"""What differs between a frozen value and today's, and whether `intended.toml` says that it may."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from contract_names import FROZEN, intended
from contract_summary import PROSE

STRICT = 1e-10
TOLERANCES = {
    "": (1e-6, "NumPy and SciPy in float64: other processors sum in another order"),
    "metier.moe": (
        1e-3,
        "torch in float32: kernels differ between processors, and some values are small differences",
    ),
    "metier.partners": (1e-3, "JAX in float32, and short trainings in it"),
    "metier.multi_index.simulate": (1e-4, "iterations, among them a student that torch trains in float32"),
    "metier.multi_index": (1e-5, "roots and quadratures, found to about eight digits"),
    "metier.forecast": (1e-5, "iterated fits stop at a tolerance of their own"),
    "metier.bilevel": (1e-5, "iterated fits stop at a tolerance of their own"),
    "study": (1e-3, "a study trains, selects and averages"),
    "verb": (1e-4, "numbers of the parts that the verb calls"),
    "file": (1e-4, "float32 arrays, read back and computed with"),
}
"""Relative tolerance of the default suite by the beginning of the name, the longest that fits, and why."""
ABSOLUTE = 1e-3
"""Times the relative tolerance: below this size a scalar is taken for rounding error of zero."""


class Difference(NamedTuple):
    path: str
    expected: Any
    got: Any

    def __str__(self) -> str:
        return f"{self.path or '(the whole)'}: expected {_short(self.expected)}, got {_short(self.got)}"


class Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING = Missing()


def _short(value: Any) -> str:
    shown = repr(value) if value is MISSING else json.dumps(value)
    return shown if len(shown) < 200 else f"{shown[:200]}..."


def is_strict(config: Any) -> bool:
    """Whether values are compared to ten digits, as on the machine that froze them."""
    return config.getoption("--strict-contract") or os.environ.get("METIER_CONTRACT") == "strict"


def tolerance(name: str, strict: bool) -> float:
    """Return the relative tolerance for a frozen name."""
    if strict:
        return STRICT
    longest = max((start for start in TOLERANCES if name.startswith(start)), key=len)
    return TOLERANCES[longest][0]


def differences(
    expected: Any, got: Any, rtol: float, path: str = "", *, grows: bool = False
) -> Iterator[Difference]:
    """Yield where `got` is not `expected`; with `grows`, mappings may have got more keys."""
    if expected == PROSE and isinstance(got, str):
        return
    if isinstance(expected, dict) and isinstance(got, dict):
        kind = expected.get("$")
        if kind != got.get("$"):
            yield Difference(path, kind, got.get("$"))
        elif kind == "array":
            yield from _arrays(expected, got, rtol, path)
        else:
            yield from _mappings(expected, got, rtol, path, grows)
    elif isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            yield Difference(_join(path, "length"), len(expected), len(got))
        for k, (one, other) in enumerate(zip(expected, got, strict=False)):
            yield from differences(one, other, rtol, f"{path}[{k}]", grows=grows)
    elif _is_number(expected) and _is_number(got):
        if not _close(expected, got, rtol, ABSOLUTE):
            yield Difference(path, expected, got)
    elif expected != got or isinstance(expected, bool) != isinstance(got, bool):
        yield Difference(path, expected, got)


def _mappings(expected: Any, got: Any, rtol: float, path: str, grows: bool) -> Iterator[Difference]:
    for key, value in expected.items():
        # The fields of an object stand in its own place: result.gain, not result.fields.gain.
        at = path if key == "fields" and "$" in expected else _join(path, key)
        if key not in got:
            yield Difference(at, value, MISSING)
        else:
            added = grows or (key == "fields" and "$" in expected)
            yield from differences(value, got[key], rtol, at, grows=added)
    if not grows:
        for key in got.keys() - expected.keys():
            yield Difference(_join(path, key), MISSING, got[key])


def _arrays(expected: Any, got: Any, rtol: float, path: str) -> Iterator[Difference]:
    for key in ("dtype", "shape", "finite", "crc"):
        if expected.get(key) != got.get(key):
            yield Difference(_join(path, key), expected.get(key, MISSING), got.get(key, MISSING))
            return
    size = math.prod(expected["shape"])
    values = [value for value in expected.get("values", ()) if _is_number(value)]
    norm = expected.get("norm", math.sqrt(sum(float(value) ** 2 for value in values)))
    # Entries are as exact as the array is large, and a sum as its entries are many.
    typical = norm / math.sqrt(max(size, 1))
    scales = {
        "values": typical,
        "first": typical,
        "last": typical,
        "sum": norm * math.sqrt(max(size, 1)),
        "norm": 0.0,
    }
    for key, scale in scales.items():
        ours, theirs = expected.get(key, []), got.get(key, [])
        listed = isinstance(ours, list)
        for k, (one, other) in enumerate(zip(ours, theirs, strict=True) if listed else [(ours, theirs)]):
            exact = not (_is_number(one) and _is_number(other)) or (
                isinstance(one, int) and isinstance(other, int)
            )
            if (one != other) if exact else not _close(one, other, rtol, scale):
                yield Difference(_join(path, key) + (f"[{k}]" if listed else ""), one, other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _close(one: float, other: float, rtol: float, scale: float) -> bool:
    if isinstance(one, int) and isinstance(other, int):
        return one == other
    return abs(one - other) <= rtol * max(abs(one), scale)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else str(key)


def frozen(part: str) -> dict[str, Any]:
    """Return what is frozen of a part: "signatures", "snippets", "verbs", "files" or "records"."""
    found: dict[str, Any] = json.loads((FROZEN / f"{part}.json").read_text(encoding="utf-8"))
    return found


def entries_of(part: str, name: str) -> list[dict[str, str]]:
    """Return the intended differences of one frozen name."""
    every = intended().get("difference", [])
    return [entry for entry in every if (entry["part"], entry["name"]) == (part, name)]


def covers(entry: dict[str, str], difference: Difference) -> bool:
    """Whether an entry intends a difference: its path is the difference's, or above it."""
    path, above = difference.path, entry.get("path", "")
    return not above or path == above or path.startswith((f"{above}.", f"{above}["))


def assert_as_frozen(part: str, name: str, found: list[Difference]) -> None:
    """Fail on differences that are not intended, and on intended ones that are not there."""
    entries = entries_of(part, name)
    unintended = [one for one in found if not any(covers(entry, one) for entry in entries)]
    unused = [entry for entry in entries if not any(covers(entry, one) for one in found)]
    lines = [f"  {one}" for one in unintended[:12]]
    if len(unintended) > 12:
        lines.append(f"  and {len(unintended) - 12} more")
    lines += [
        f"  intended.toml has an entry for {entry.get('path') or 'all of it'}, which is as frozen: remove it"
        for entry in unused
    ]
    assert not lines, "\n".join([f"{part} of {name}:", *lines])

"""Random streams that derive from labels, so that rivals see the same data and comparisons are paired."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from .errors import InputError


def as_generator(rng: int | np.random.Generator) -> np.random.Generator:
    """Turn a seed into a generator; a generator is passed through and shared with its owner.

    Args:
        rng: A non-negative integer or a `numpy.random.Generator`.

    Returns:
        A generator.

    Raises:
        InputError: `rng` is neither; `None` is refused because results must be repeatable.

    Example:
        >>> bool(as_generator(3).random() == as_generator(3).random())
        True
    """
    if isinstance(rng, np.random.Generator):
        return rng
    return np.random.default_rng(_seed(rng, "rng"))


def seed_of(rng: int | np.random.Generator) -> int:
    """Return the seed from which all streams of a call derive: the integer, or one draw of a generator.

    Args:
        rng: A non-negative integer or a `numpy.random.Generator`.

    Returns:
        An integer in [0, 2^63) for a generator.

    Raises:
        InputError: `rng` is neither.

    Example:
        >>> seed_of(3), seed_of(np.random.default_rng(3)) == seed_of(np.random.default_rng(3))
        (3, True)
    """
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**63 - 1))
    return check_rng(rng)


def check_rng(rng: int | np.random.Generator) -> int:
    """Refuse what is neither seed nor generator, and draw nothing; returns the seed, 0 for a generator."""
    return 0 if isinstance(rng, np.random.Generator) else _seed(rng, "rng")


def derive(seed: int, *labels: str | int) -> np.random.Generator:
    """Return the stream that belongs to `seed` and the labels, whatever else was drawn before.

    The stream is seeded by SHA-256 of the seed and the labels, which are told apart by type and
    position: `("a", "bc")`, `("ab", "c")`, `3` and `"3"` are different streams.

    Args:
        seed: A non-negative integer.
        *labels: Strings or integers, e.g. `"study", "replicate", 3`.

    Returns:
        A generator, the same on every machine.

    Raises:
        InputError: The seed is negative or no integer, or a label is neither string nor integer.

    Example:
        >>> a = derive(0, "noise", 3).random()
        >>> bool(a == derive(0, "noise", 3).random()), bool(a == derive(0, "noise", 4).random())
        (True, False)
    """
    return np.random.default_rng(int.from_bytes(_digest(seed, labels), "big"))


def derive_seed(seed: int, *labels: str | int) -> int:
    """Return a 63-bit seed that belongs to `seed` and the labels, for libraries that want a number.

    Args:
        seed: A non-negative integer.
        *labels: Strings or integers.

    Returns:
        An integer in [0, 2^63).

    Raises:
        InputError: As in `derive`.

    Example:
        >>> derive_seed(0, "fold", 1) == derive_seed(0, "fold", 1)
        True
        >>> derive_seed(0, "fold", 1) < 2**63
        True
    """
    return int.from_bytes(_digest(seed, labels)[:8], "big") >> 1


def _digest(seed: int, labels: tuple[str | int, ...]) -> bytes:
    parts = [_seed(seed, "seed"), *(_label(label) for label in labels)]
    return hashlib.sha256(json.dumps(parts).encode("ascii")).digest()


def _seed(value: object, name: str) -> int:
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0:
        return int(value)
    raise InputError(
        f"{name} decides every random draw",
        expected="a non-negative integer" + (" or a numpy.random.Generator" if name == "rng" else ""),
        got=repr(value),
        next_step=f"Pass {name}=0, for example.",
    )


def _label(value: object) -> str | int:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    raise InputError(
        "stream labels are strings or integers",
        expected='labels like "replicate", 3',
        got=repr(value),
        next_step="Convert the label to a string first.",
    )

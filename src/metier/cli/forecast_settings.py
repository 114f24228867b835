"""`--set key=value` for a forecaster: every parameter of `ClusterForecaster` by its own type."""

from __future__ import annotations

import collections.abc
import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any

from metier.cli.settings import parse_settings
from metier.core import InputError
from metier.forecast import ClusterForecaster

OPTIONS = {
    "horizon": "--horizon",
    "lags": "--lags",
    "season_length": "--season-length",
    "loss": "--loss",
    "freq": "--freq",
    "id_col": "--id-col",
    "time_col": "--time-col",
    "target_col": "--target-col",
    "rng": "--seed",
    "level": "--level",
}
"""Parameters with an option of their own."""


def forecaster_settings(texts: Mapping[str, str]) -> dict[str, Any]:
    """Parse the texts by the types of `ClusterForecaster`'s parameters.

    Raises:
        InputError: an unknown key (with its neighbors), one that has its own option, or an unreadable value.

    Example:
        >>> forecaster_settings({"n_clusters": "auto", "quantiles": "0.1,0.9"})
        {'n_clusters': 'auto', 'quantiles': (0.1, 0.9)}
    """
    hints = typing.get_type_hints(ClusterForecaster.__init__)
    types = {
        name: readable(hints[name])
        for name in inspect.signature(ClusterForecaster).parameters
        if name not in OPTIONS
    }
    return parse_settings(texts, types, options=OPTIONS, owner="the forecaster has no parameter")


def readable(hint: Any) -> Any:
    """A type that `parse_value` reads: sequences become tuples, Any becomes text.

    Example:
        >>> readable(collections.abc.Sequence[int])
        tuple[int, ...]
    """
    if hint is Any:
        return str
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    sequences = [kind for kind in (hint, *args) if typing.get_origin(kind) is collections.abc.Sequence]
    if origin is collections.abc.Sequence or sequences:
        return tuple[typing.get_args(sequences[0])[0], ...]  # type: ignore[misc]
    return hint


def in_options(text: str) -> str:
    """Say a library's advice in the command's words.

    Example:
        >>> in_options("Pass repair='fill_zero', or fit with horizon=7.")
        'Pass --set repair=fill_zero, or fit with --horizon 7.'
        >>> in_options("Name yours with id_col, time_col and target_col.")
        'Name yours with --id-col, --time-col and --target-col.'
    """

    def say(match: re.Match[str]) -> str:
        name, value = match[1], match[2].strip("'")
        if name in OPTIONS:
            return f"{OPTIONS[name]} {value}"
        known = name in inspect.signature(ClusterForecaster).parameters
        return f"--set {name}={value}" if known else match[0]

    said = re.sub(r"\b(\w+)=('[^']*'|[\w.]*\w)", say, text)
    return re.sub(r"\b(?:id|time|target)_col\b", lambda match: OPTIONS[match[0]], said)


def parse_lags(text: str | None) -> int | tuple[int, ...] | None:
    """A number of lags, or the lags themselves.

    Example:
        >>> parse_lags("24"), parse_lags("1,2,24")
        (24, (1, 2, 24))
    """
    if text is None:
        return None
    try:
        lags = tuple(int(part) for part in text.split(","))
    except ValueError:
        lags = ()
    if not lags or min(lags) < 1:
        raise InputError(
            "--lags is a number of lags, or the lags themselves",
            expected="for example 24, or 1,2,24",
            got=repr(text),
            next_step="Correct the option, or leave it out for a default that follows the frequency.",
        )
    return lags if "," in text else lags[0]

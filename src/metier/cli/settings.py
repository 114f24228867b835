"""`--set KEY=VALUE` of the verbs that take a file: texts to values, by the types of what they set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metier.core import InputError
from metier.core.parse import nearest, parse_value


def parse_settings(
    texts: Mapping[str, str], types: Mapping[str, Any], *, options: Mapping[str, str], owner: str
) -> dict[str, Any]:
    """Parse every text by the type of its key.

    Args:
        texts: key -> text, as given to `--set`.
        types: key -> type, of everything that may be set.
        options: key -> option, of what has an option of its own instead.
        owner: the beginning of the error about an unknown key.

    Returns:
        Key -> value.

    Raises:
        InputError: an unknown key (with its neighbors), one that has its own option, or an unreadable value.

    Example:
        >>> parse_settings({"folds": "10"}, {"folds": int}, options={}, owner="metier iv has no setting")
        {'folds': 10}
    """
    values = {}
    for key, text in texts.items():
        if key in options:
            raise InputError(
                f"{key} has an option of its own",
                expected=f"{options[key]} VALUE",
                got=f"--set {key}={text}",
                next_step=f"Write {options[key]} {text}.",
            )
        if key not in types:
            raise InputError(
                f"{owner} {key!r}",
                expected="one of " + ", ".join(types),
                got=repr(key),
                next_step=nearest(key, types),
            )
        values[key] = parse_value(text, types[key], key=key)
    return values

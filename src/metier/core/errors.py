"""Errors that say the rule, what was expected, what was got, and what to do next."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class MetierError(Exception):
    """Base of every error that metier raises on purpose.

    Example:
        >>> issubclass(InputError, MetierError)
        True
    """


def _one_line(part: object) -> str:
    return " ".join(str(part).split())


class InputError(MetierError, ValueError):
    """The user's data or setting breaks a rule; the message is one line that ends in the next step.

    Args:
        rule: The rule that was broken, in the user's words.
        expected: What the rule asks for.
        got: What was found, naming the series, layer or key.
        next_step: What the user can do now.

    Example:
        >>> raise InputError("level is a probability", expected="below 1", got=95, next_step="Use 0.95.")
        Traceback (most recent call last):
        ...
        metier.core.errors.InputError: level is a probability: expected below 1, got 95. Use 0.95.
    """

    def __init__(self, rule: str, *, expected: object, got: object, next_step: str) -> None:
        self.rule = _one_line(rule)
        self.expected = _one_line(expected)
        self.got = _one_line(got)
        self.next_step = _one_line(next_step)
        super().__init__(f"{self.rule}: expected {self.expected}, got {self.got}. {self.next_step}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments are lost by the default protocol, and workers send errors home by pickle.
        return _rebuild_input_error, (self.rule, self.expected, self.got, self.next_step)


def _rebuild_input_error(rule: str, expected: str, got: str, next_step: str) -> InputError:
    return InputError(rule, expected=expected, got=got, next_step=next_step)


class MissingExtraError(MetierError, ImportError):
    """A feature needs a package that the base install leaves out.

    Args:
        module: The module that could not be imported.
        extra: The extra of metier that brings it.

    Example:
        >>> print(MissingExtraError("ray", "dist"))
        this feature needs the package 'ray', which is not installed. Run: pip install "metier[dist]"
    """

    def __init__(self, module: str, extra: str) -> None:
        self.module = module
        self.extra = extra
        text = f"this feature needs the package {module!r}, which is not installed."
        super().__init__(f'{text} Run: pip install "metier[{extra}]"', name=module)

    def __reduce__(self) -> tuple[Any, ...]:
        return MissingExtraError, (self.module, self.extra)


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or say which extra of metier brings it.

    Args:
        module: Dotted module name.
        extra: The extra that lists its package.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: The package is not installed. An error raised inside an installed package
            is passed on unchanged.

    Example:
        >>> require("json", "forecast").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise MissingExtraError(error.name, extra) from error
        raise

"""Errors that say the rule, what was expected, what was got, and what to do next."""

from __future__ import annotations

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

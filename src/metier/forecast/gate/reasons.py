"""Why the gate served what it serves: short codes, each with a sentence for people."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class GateReason(StrEnum):
    """Why the gate chose as it did where no test decided; `sentence` says it to people.

    Example:
        >>> GateReason.VAL_TOO_SHORT.sentence
        'VAL leaves no block that could judge with a gap on both sides; the global model stays.'
    """

    NO_VARYING_SERIES = "no_varying_series"
    TOO_FEW_SERIES = "too_few_series"
    VAL_TOO_SHORT = "val_too_short"
    ONE_CLUSTER = "one_cluster"
    NO_ORIGIN = "no_origin"
    UNTESTED = "untested"

    @property
    def sentence(self) -> str:
        """The reason as one sentence."""
        return _SENTENCES[self]

    @property
    def next_step(self) -> str:
        """What to do about it; empty where nothing helps."""
        return LONGER_VAL if self is GateReason.VAL_TOO_SHORT else ""


LONGER_VAL = "Choose a shorter horizon, fewer lags or a larger val_size to have it judged."

_SENTENCES = {
    GateReason.NO_VARYING_SERIES: "No series varies in TRAIN; the global model stays.",
    GateReason.TOO_FEW_SERIES: "No number of clusters is allowed for this panel; the global model stays.",
    GateReason.VAL_TOO_SHORT: (
        "VAL leaves no block that could judge with a gap on both sides; the global model stays."
    ),
    GateReason.ONE_CLUSTER: (
        "Folds found clusters that gain, but all of VAL leaves a single one: the global model."
    ),
    GateReason.NO_ORIGIN: "No held-out origin for this cluster; the global model serves it.",
    GateReason.UNTESTED: "The clusters are used without a test (gate='none').",
}

FLAGS = {
    "two_blocks": "judged on two held-out blocks, since VAL has no room for more",
    "truncated_gap": "judged on two blocks with a gap of the horizon alone, since VAL is short",
    "val_too_short": "judged nothing, since VAL has no room for a block with a gap on both sides",
    "no_varying_series": "judged nothing, since no series varies in TRAIN",
}
"""What the folds had to give up, by code: continues a sentence whose subject is the gate."""


class Reasoned(Protocol):
    """What carries a sentence and its code: a gate's report, or a decision."""

    @property
    def reason(self) -> str:
        """The sentence."""

    @property
    def code(self) -> str:
        """Its code."""


def with_next_step(outcome: Reasoned) -> str:
    """Return the sentence, and what to do about it where something helps.

    Example:
        >>> from metier.core import Decision
        >>> code = GateReason.VAL_TOO_SHORT
        >>> with_next_step(Decision.untested(code.sentence, code=code)).endswith("to have it judged.")
        True
    """
    known = outcome.code in set(GateReason)
    return f"{outcome.reason} {GateReason(outcome.code).next_step if known else ''}".rstrip()

"""The gate's codes in words for people."""

from __future__ import annotations

import re

LONGER_VAL = "Choose a shorter horizon, fewer lags or a larger val_size to have it judged."

FLAGS = {
    "two_blocks": "judged on two held-out blocks, since VAL has no room for more",
    "truncated_gap": "judged on two blocks with a gap of the horizon alone, since VAL is short",
    "val_too_short": "judged nothing, since VAL has no room for a block with a gap on both sides",
    "no_varying_series": "judged nothing, since no series varies in TRAIN",
}
"""What the folds had to give up, by code: continues a sentence whose subject is the gate."""


def plain_reason(reason: str) -> str:
    """A gate's reason without its code, and with a next step where VAL was too short.

    Example:
        >>> plain_reason("no_varying_series: no series varies in TRAIN; the global model stays.")
        'No series varies in TRAIN; the global model stays.'
        >>> plain_reason("The gate adopts.")
        'The gate adopts.'
    """
    code = re.match(r"([a-z]+(?:_[a-z]+)+): ", reason)
    if code is None:
        return reason
    said = reason[code.end() :]
    said = said[:1].upper() + said[1:]
    return f"{said} {LONGER_VAL}" if code[1] == "val_too_short" else said

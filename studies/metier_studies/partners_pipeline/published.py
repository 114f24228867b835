"""What the paper's Tables 3 and 4 say of each population, and of the difference between two."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A population of 8 partners with earlier selves, cooking, means over 3 seeds.

    Args:
        D, S, O, R: its measures; I is D + S.
        capable: partners of 8 that are, where the paper says it.
    """

    D: float
    S: float
    O: float  # noqa: E741
    R: float
    capable: float | None = None

    @property
    def I(self) -> float:  # noqa: E743, N802
        """What behaviour tells about the partner, in nats."""
        return self.D + self.S


PUBLISHED = {
    "self-play": Row(1.08, -0.49, 0.08, 0.18),
    "xp-min": Row(1.31, -0.13, 0.51, 0.56, 7.33),
    "xp-min+mp": Row(1.48, -0.38, 0.47, 0.44),
    "xp-min+mi": Row(1.63, -0.63, 0.54, 0.61, 8.0),
    "xp-min+spectrl": Row(1.21, -0.11, 0.25, 0.58, 6.0),
    "xp-min+dagger": Row(1.32, -0.14, 0.29, 0.62, 7.33),
    "xp-min+mi+spectrl": Row(1.44, -0.45, 0.20, 0.62, 5.33),
    "xp-min+mi+dagger": Row(1.60, -0.56, 0.30, 0.64, 8.0),
}
"""The paper's rows by our names of the arms; an arm that the paper has not is not here."""


def published_difference(letter: str, low: str, high: str) -> float | None:
    """Return the paper's measure of `high` minus that of `low`, or None if it lacks one of them."""
    if low not in PUBLISHED or high not in PUBLISHED:
        return None
    return float(getattr(PUBLISHED[high], letter) - getattr(PUBLISHED[low], letter))

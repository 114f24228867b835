"""A claim about a number and its limit, judged by the number's interval."""

from __future__ import annotations

from dataclasses import dataclass

from metier.runs import Claim, Measured
from metier_studies.lib.shares import seeds_needed, verdict_above, verdict_below


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A claim before its verdict: the measured number is to lie above the limit, or below it."""

    id: str
    text: str
    effect: str
    measured: Measured
    limit: float
    below: bool = False

    def judged(self, command: str) -> Claim:
        """The claim with the verdict of its interval, and how many of its units would decide an open one."""
        verdict = (verdict_below if self.below else verdict_above)(self.measured, self.limit)
        needed = seeds_needed(self.measured, self.limit) if verdict == "undecided" else None
        return Claim(
            id=self.id,
            statement=self.text,
            source="metier",
            minimum_effect=self.effect,
            minimum_effect_value=self.limit,
            measured=self.measured,
            verdict=verdict,
            needed=needed,
            needed_unit="" if needed is None else self.measured.unit,
            command=command,
        )

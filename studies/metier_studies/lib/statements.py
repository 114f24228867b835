"""A claim about a number and its limit, judged by the number's interval."""

from __future__ import annotations

from dataclasses import dataclass

from metier.records import Claim, Measured
from metier_studies.lib.claims import claim


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
        """The claim with its verdict, and how many of its units would decide an open one."""
        return claim(
            self.measured,
            at_least=None if self.below else self.limit,
            at_most=self.limit if self.below else None,
            id=self.id,
            statement=self.text,
            source="metier",
            minimum_effect=self.effect,
            command=command,
        )

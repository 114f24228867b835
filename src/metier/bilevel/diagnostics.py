"""Numbers that say how far an estimate can be trusted, and the warnings they raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arrays import Floats
from .crossfit import Mean
from .estimate import Diagnostics
from .evaluation import Evaluation

if TYPE_CHECKING:
    from .obigrad import OBiGrad


def diagnose(
    model: OBiGrad, w: Floats, evaluations: list[Evaluation], mean: Mean, kept: int
) -> tuple[Diagnostics, tuple[str, ...]]:
    """Return the diagnostics of an estimate and its warnings."""
    evaluation = evaluations[kept]
    r2 = {name: fit.r2() for name, fit in evaluation.fitted.items()}
    return Diagnostics(r2=r2), model.problem.caveats

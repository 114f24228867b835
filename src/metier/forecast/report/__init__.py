"""The page of a fitted forecaster: sections, headline, figures and tables."""

from metier.forecast.report.facts import (
    IN_USE as IN_USE,
    fit_quietly as fit_quietly,
    frozen_design as frozen_design,
    naive_losses as naive_losses,
    trace_of as trace_of,
)
from metier.forecast.report.gains import (
    gain_decision as gain_decision,
    relative_estimate as relative_estimate,
    relative_gain as relative_gain,
)
from metier.forecast.report.sections import headline as headline, sections as sections

__all__ = [
    "IN_USE",
    "fit_quietly",
    "frozen_design",
    "gain_decision",
    "headline",
    "naive_losses",
    "relative_estimate",
    "relative_gain",
    "sections",
    "trace_of",
]

"""The studies: each answers one question by a run that anybody can repeat.

The registry is text only, so that `metier list` and `metier --help` load no study. To add a study, write
its module with a `STUDY: Study` and add one entry to `REGISTRY`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from metier.core.registry import Entry as Entry, check_name as check_name, load_study as load_study

if TYPE_CHECKING:
    from metier.runs import (
        SIZES as SIZES,
        Progress as Progress,
        Silent as Silent,
        Study as Study,
        command_line as command_line,
        execute as execute,
        resolve_config as resolve_config,
    )

REGISTRY: dict[str, Entry] = {
    "forecast": Entry(
        "metier_studies.forecast_flights.study:STUDY",
        "forecast",
        "Forecasting flights: one model or specialists?",
        extras=("forecast",),
    ),
    "forecast-gate": Entry(
        "metier_studies.forecast_gate.study:STUDY",
        "forecast",
        "Forecasting: does the gate keep one model where there is nothing to divide?",
    ),
    "forecast-panels": Entry(
        "metier_studies.forecast_panels.study:STUDY",
        "forecast",
        "Forecasting many panels: what the choice costs against hindsight",
        extras=("forecast",),
    ),
    "exponents": Entry(
        "metier_studies.exponents.study:STUDY",
        "multi_index",
        "Exponents: how many samples does a direction, a committee, a hierarchy need?",
        extras=("multi-index", "moe"),
    ),
    "iv": Entry(
        "metier_studies.bilevel_iv.study:STUDY",
        "bilevel",
        "Instrumental variables: a gradient with a standard error, on real data",
    ),
    "bilevel-paper": Entry(
        "metier_studies.bilevel_paper.study:STUDY",
        "bilevel",
        "Bilevel gradients: the paper's experiments, its tables beside ours",
        in_tour=False,
    ),
    "bilevel-lasso": Entry(
        "metier_studies.bilevel_lasso.study:STUDY",
        "bilevel",
        "Bilevel gradients: many instruments and a first stage by the lasso",
        in_tour=False,
    ),
    "bilevel-sources": Entry(
        "metier_studies.bilevel_sources.study:STUDY",
        "bilevel",
        "Weights of data sources: how much should each count, and does it pay?",
        extras=("forecast",),
        in_tour=False,
    ),
    "bilevel-warnings": Entry(
        "metier_studies.bilevel_warnings.study:STUDY",
        "bilevel",
        "Bilevel gradients: do the warnings come where intervals cover too little?",
        in_tour=False,
    ),
    "moe-balancing": Entry(
        "metier_studies.moe_balancing.study:STUDY",
        "moe",
        "Mixtures of experts: does the balancer matter?",
        extras=("moe",),
    ),
    "moe-upcycling": Entry(
        "metier_studies.moe_upcycling.study:STUDY",
        "moe",
        "Mixtures of experts: does upcycling a trained encoder pay?",
        extras=("moe", "hf", "minilm"),
        in_tour=False,
    ),
    "multilinear-digits": Entry(
        "metier_studies.multilinear_digits.study:STUDY",
        "moe",
        "Multilinear experts: do many small ones pay at the price of a dense layer?",
        extras=("moe",),
    ),
    "multilinear-minilm": Entry(
        "metier_studies.multilinear_minilm.study:STUDY",
        "moe",
        "Multilinear experts: a trained encoder, taken apart and put together",
        extras=("moe", "hf", "minilm"),
    ),
    "multilinear-bias": Entry(
        "metier_studies.multilinear_bias.study:STUDY",
        "moe",
        "Multilinear experts: does editing them mend a planted bias?",
        extras=("moe",),
        in_tour=False,
    ),
    "partners": Entry(
        "metier_studies.partners_pipeline.study:STUDY",
        "partners",
        "Partners: does a generalist profit from specialist partners?",
        extras=("partners",),
    ),
}

_OF_RUNS = ("SIZES", "Progress", "Silent", "Study", "command_line", "execute", "resolve_config")

__all__ = ["REGISTRY", "Entry", "check_name", "load_study", *_OF_RUNS]


def __getattr__(name: str) -> Any:
    """Load what `metier.runs` has on first use: the registry alone loads no NumPy."""
    if name in _OF_RUNS:
        return getattr(importlib.import_module("metier.runs"), name)
    raise AttributeError(f"module 'metier_studies' has no attribute {name!r}")

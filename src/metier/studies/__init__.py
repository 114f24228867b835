"""The studies: each answers one question by a run that anybody can repeat.

The registry is text only, so that `metier list` and `metier --help` load no study. To add a study, write
`studies/NAME/study.py` with a `STUDY: Study` and add one line to `REGISTRY`.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

from metier.studies.base import (
    SIZES as SIZES,
    Progress as Progress,
    Silent as Silent,
    Study as Study,
    input_error,
    nearest,
    resolve_config as resolve_config,
)
from metier.studies.execute import command_line as command_line, execute as execute


class Entry(NamedTuple):
    """Where a study lives and what it is, without importing it."""

    target: str
    family: str
    title: str
    extras: tuple[str, ...] = ()
    in_tour: bool = True


REGISTRY: dict[str, Entry] = {
    "forecast": Entry(
        "metier.studies.forecast_flights.study:STUDY",
        "forecast",
        "Forecasting flights: one model or specialists?",
        extras=("forecast",),
    ),
    "forecast-gate": Entry(
        "metier.studies.forecast_gate.study:STUDY",
        "forecast",
        "Forecasting: does the gate keep one model where there is nothing to divide?",
    ),
    "forecast-panels": Entry(
        "metier.studies.forecast_panels.study:STUDY",
        "forecast",
        "Forecasting many panels: what the choice costs against hindsight",
        extras=("forecast",),
    ),
    "exponents": Entry(
        "metier.studies.exponents.study:STUDY",
        "multi_index",
        "Exponents: how many samples does a direction, a committee, a hierarchy need?",
        extras=("multi-index", "moe"),
    ),
    "iv": Entry(
        "metier.studies.bilevel_iv.study:STUDY",
        "bilevel",
        "Instrumental variables: a gradient with a standard error, on real data",
    ),
    "bilevel-paper": Entry(
        "metier.studies.bilevel_paper.study:STUDY",
        "bilevel",
        "Bilevel gradients: the paper's experiments, its tables beside ours",
        in_tour=False,
    ),
    "bilevel-lasso": Entry(
        "metier.studies.bilevel_lasso.study:STUDY",
        "bilevel",
        "Bilevel gradients: many instruments and a first stage by the lasso",
        in_tour=False,
    ),
    "bilevel-sources": Entry(
        "metier.studies.bilevel_sources.study:STUDY",
        "bilevel",
        "Weights of data sources: how much should each count, and does it pay?",
        extras=("forecast",),
        in_tour=False,
    ),
    "bilevel-warnings": Entry(
        "metier.studies.bilevel_warnings.study:STUDY",
        "bilevel",
        "Bilevel gradients: do the warnings come where intervals cover too little?",
        in_tour=False,
    ),
    "moe-balancing": Entry(
        "metier.studies.moe_balancing.study:STUDY",
        "moe",
        "Mixtures of experts: does the balancer matter?",
        extras=("moe",),
    ),
    "moe-upcycling": Entry(
        "metier.studies.moe_upcycling.study:STUDY",
        "moe",
        "Mixtures of experts: does upcycling a trained encoder pay?",
        extras=("moe", "hf", "minilm"),
        in_tour=False,
    ),
    "multilinear-digits": Entry(
        "metier.studies.multilinear_digits.study:STUDY",
        "moe",
        "Multilinear experts: do many small ones pay at the price of a dense layer?",
        extras=("moe",),
    ),
    "multilinear-minilm": Entry(
        "metier.studies.multilinear_minilm.study:STUDY",
        "moe",
        "Multilinear experts: a trained encoder, taken apart and put together",
        extras=("moe", "hf", "minilm"),
    ),
    "multilinear-bias": Entry(
        "metier.studies.multilinear_bias.study:STUDY",
        "moe",
        "Multilinear experts: does editing them mend a planted bias?",
        extras=("moe",),
        in_tour=False,
    ),
    "partners": Entry(
        "metier.studies.partners_pipeline.study:STUDY",
        "partners",
        "Partners: does a generalist profit from specialist partners?",
        extras=("partners",),
    ),
}


def check_name(name: str) -> None:
    """Raise InputError, with near names, unless a study is called `name`."""
    if name not in REGISTRY:
        raise input_error(
            f"no study is called {name!r}",
            expected="one of " + (", ".join(REGISTRY) or "(none registered)"),
            got=repr(name),
            next_step=nearest(name, REGISTRY),
        )


def load_study(name: str) -> Study:
    """Import and return the registered study `name`.

    Raises:
        InputError: no study has this name; the message suggests near ones.
        MissingExtraError: the study needs an extra that is not installed.
    """
    check_name(name)
    from metier.core.extras import naming_extras, require_extras

    require_extras(*REGISTRY[name].extras)
    module, attribute = REGISTRY[name].target.split(":")
    with naming_extras():
        study: Study = getattr(importlib.import_module(module), attribute)
    return study


__all__ = [
    "REGISTRY",
    "SIZES",
    "Entry",
    "Progress",
    "Silent",
    "Study",
    "check_name",
    "command_line",
    "execute",
    "load_study",
    "resolve_config",
]

"""What every study finds at the size of a few seconds: claims, measures, tables and losses of its record."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from contract_names import locate
from contract_summary import summary

TRAINING = {
    "n_seeds": "1",
    "episodes": "4",
    "hidden": "4",
    "generalist_units": "2",
    "n_envs": "2",
    "generalist_envs": "2",
    "n_steps": "4",
    "epochs": "1",
    "minibatches": "1",
    "reports": "1",
    "workers": "1",
    "pair_episodes": "2",
    **{f"{part}_steps": "64" for part in ("self_play", "generation", "distill", "generalist", "oracle")},
}
SETTINGS: dict[str, dict[str, str]] = {
    "forecast": {
        "n_series": "24",
        "season_length": "none",
        "n_clusters": "2",
        "origins": "2",
        "homogeneous": "2",
        "permutations": "19",
    },
    "forecast-gate": dict.fromkeys(
        ("homogeneous_seeds", "power_seeds", "both_seeds", "recovery_seeds", "noise_seeds"), "2"
    ),
    "forecast-panels": {
        "panels": "simulated_strong,simulated_homogeneous",
        "max_series": "20",
        "max_steps": "400",
        "n_windows": "3",
    },
    "exponents": {
        "smooth": "abs",
        "steps": "3",
        "spectral_dimension": "30",
        "spectral_seeds": "2",
        "committee_factors": "0.5,3",
        "committee_dimension": "20",
        "committee_seeds": "2",
        "onset_dimensions": "16,20",
        "onset_factors": "1,3",
        "onset_seeds": "2",
        "student_factors": "2",
        "student_dimension": "12",
        "student_seeds": "1",
        "ladder_units": "24",
    },
    "iv": {"cases": "labsup,card", "repeats": "1", "plugin_seeds": "6", "weak_seeds": "6"},
    "bilevel-paper": {
        "replicates": "5",
        "sizes_1": "200",
        "sizes_4": "100",
        "kernel_replicates": "2",
        "kernel_sizes": "100",
        "penalties": "0.01",
        "bellman_replicates": "5",
        "bellman_sizes": "200",
    },
    "bilevel-lasso": {"sizes": "100,200", "seeds": "5", "folds": "2"},
    "bilevel-sources": {
        "gradient_sizes": "300",
        "gradient_seeds": "5",
        "weight_n": "150",
        "weight_seeds": "1",
        "n_airports": "12",
        "n_clusters": "2",
        "n_weeks": "4",
    },
    "bilevel-warnings": {
        "shapes": "linear,sine",
        "sizes": "200",
        "strengths": "0.1,0.8",
        "cells": "6",
        "seeds": "4",
        "workers": "1",
    },
    "moe-balancing": {
        "arms": "phi,none,switch",
        "headline_seeds": "2",
        "pure_arms": "phi",
        "pure_seeds": "1",
        "tuning_steps": "3",
        "steps": "4",
        "characters": "12000",
        "dim": "16",
        "heads": "2",
        "hidden": "8",
        "n_experts": "4",
        "length": "32",
        "rows": "4",
        "windows": "4",
        "permutations": "3",
        "buckets": "64",
        "bias_sizes": "8,32",
        "bias_batches": "20",
        "workers": "1",
    },
    "moe-upcycling": {
        "seeds": "2",
        "workers": "1",
        "per_work": "6",
        "length": "16",
        "trained_layers": "1",
        "rows": "4",
        "steps": "2",
    },
    "multilinear-digits": {
        "images": "digits",
        "arms": "dense,low_rank,sparse,cp-4,cp-64,mxd-4,cp-1024,cp-1024-flat",
        "rates": "0.001,0.003",
        "seeds": "2",
        "rows": "400",
        "steps": "6",
        "permutations": "9",
    },
    "multilinear-minilm": {
        "seeds": "2",
        "per_work": "6",
        "length": "16",
        "rows": "2",
        "steps": "2",
        "permutations": "3",
    },
    "multilinear-bias": {
        "images": "digits",
        "seeds": "2",
        "rows": "600",
        "steps": "8",
        "grid": "4",
        "marked_positive": "0.1",
    },
    "partners": {"n_members": "2", "payoffs": "1,0.9", "n_pairs": "none"} | TRAINING,
}
IN_DEFAULT_SUITE = ("bilevel-lasso", "bilevel-paper", "forecast", "moe-balancing", "multilinear-bias")
"""The cheapest of a family; the others run in the slow suite."""
CODES = ("id", "study", "family", "size", "verdict", "name", "sha256", "kind", "dependence")
"""Keys whose texts are codes; any other text of a record is prose."""


def record_of(study: str, folder: Path) -> dict[str, Any]:
    """Run a study and return what its record holds beside prose."""
    execute, load_study = (locate(f"metier.studies.{name}") for name in ("execute", "load_study"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        execute(load_study(study), folder, overrides=SETTINGS[study], seed=3)
    return plain_record(json.loads((folder / "result.json").read_text(encoding="utf-8")))


def plain_record(document: dict[str, Any]) -> dict[str, Any]:
    """Return what decides: headline, claims, tables by id, losses and data."""
    tables = [table for section in document["sections"] for table in section["tables"]]
    figures = [figure for section in document["sections"] for figure in section["figures"]]
    found = {key: document[key] for key in ("study", "family", "size", "seed", "headline", "data")}
    found |= {key: {item["id"]: item for item in document[key]} for key in ("claims", "losses")}
    found["tables"] = {table["id"]: {"rows": table["rows"]} for table in tables}
    found["figures"] = {figure["id"]: figure["data"]["kind"] for figure in figures}
    return {key: summary(_without_prose(value, key)) for key, value in found.items()}


def _without_prose(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {k: _without_prose(v, k) for k, v in value.items() if not isinstance(v, str) or k in CODES}
    if isinstance(value, list):
        # Cells of a table that are text: their place is kept.
        return [
            None if isinstance(item, str) and key != "keys" else _without_prose(item, "") for item in value
        ]
    return value

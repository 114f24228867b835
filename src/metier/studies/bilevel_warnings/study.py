"""Study `bilevel-warnings`: on a grid of designs, do warnings come where intervals cover too little?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from metier.runs import Result, Run
from metier.studies.base import Progress, Study

if TYPE_CHECKING:
    from metier.bilevel.designs import IVDesign

TITLE = "Bilevel gradients: do the warnings come where intervals cover too little?"
QUESTION = (
    "In designs that differ in sample size, dimension, learner, strength of the instruments and "
    "misspecification: does a warning come where the 95 % interval covers below 90 %, and nowhere else?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningsConfig:
    """Which designs are scored. Thresholds were chosen on other shapes, sizes, strengths and seeds.

    Args:
        shapes: of the first stage: linear, quadratic, sine, interaction.
        sizes: rows.
        strengths: first-stage R^2s.
        cells: how many combinations of these with dimensions, learners and misspecification are drawn.
        seeds: replicates per cell.
        workers: processes.
    """

    shapes: tuple[str, ...] = ("linear", "sine", "interaction")
    sizes: tuple[int, ...] = (500, 2000)
    strengths: tuple[float, ...] = (0.1, 0.4, 0.8)
    cells: int = 80
    seeds: int = 200
    workers: int = 2


def run_study(config: WarningsConfig, run: Run, progress: Progress) -> Result:
    """Draw the cells, run their replicates and score the warnings."""
    from metier.bilevel.designs import CellScore, design_grid
    from metier.studies.bilevel_warnings.findings import findings

    designs = design_grid(
        shapes=config.shapes,
        sizes=config.sizes,
        strengths=config.strengths,
        cells=config.cells,
        seed=run.seed,
    )
    found = _scored(config, run, progress, designs)
    cells = [CellScore(design, **numbers) for design, numbers in zip(designs, found, strict=True)]
    return findings(config, cells, run, title=TITLE, question=QUESTION)


def _scored(
    config: WarningsConfig, run: Run, progress: Progress, designs: Sequence[IVDesign]
) -> list[dict[str, Any]]:
    from metier.studies.cells import journaled

    work = [(f"cell-{k}", design) for k, design in enumerate(designs)]
    score = partial(_score, replicates=config.seeds, seed=run.seed)
    return journaled(score, work, run, progress, workers=config.workers, words="designs")


def _score(design: IVDesign, *, replicates: int, seed: int) -> dict[str, Any]:
    from metier.bilevel.designs import score_cell

    cell = score_cell(design, replicates=replicates, seed=seed)
    return {name: getattr(cell, name) for name in ("coverage", "warned", "replicates", "expected")}


STUDY = Study(
    name="bilevel-warnings",
    family="bilevel",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": WarningsConfig(sizes=(500,), cells=24, seeds=20),
        "standard": WarningsConfig(),
        "full": WarningsConfig(cells=396, seeds=1000),
    },
    run=run_study,
    claims=("sensitivity", "false-alarms", "clear-sensitivity", "clear-false-alarms"),
    paired_on=("shapes", "sizes", "strengths", "cells", "seeds"),
)

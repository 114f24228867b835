"""Study `bilevel-warnings`: on a grid of designs, do warnings come where intervals cover too little?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from metier.core.rng import derive
from metier.runs import Progress, Result, Run, Study

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
        easy_sizes, easy_strengths: rows and strengths of designs whose learner suits the first stage.
        easy_cells: how many more of these are drawn; few of the first kind cover.
        seeds: most replicates per cell.
        look_every: replicates after which a cell whose side of 0.90 is clear stops.
        workers: processes.
    """

    shapes: tuple[str, ...] = ("linear", "sine", "interaction")
    sizes: tuple[int, ...] = (500, 2000)
    strengths: tuple[float, ...] = (0.1, 0.4, 0.8)
    cells: int = 140
    easy_sizes: tuple[int, ...] = (2000, 3000)
    easy_strengths: tuple[float, ...] = (0.6, 0.8, 0.9)
    easy_cells: int = 170
    seeds: int = 200
    look_every: int = 50
    workers: int = 2


def run_study(config: WarningsConfig, run: Run, progress: Progress) -> Result:
    """Draw the cells, run their replicates and score the warnings."""
    from metier.bilevel.designs import CellScore
    from metier_studies.bilevel_warnings.findings import findings

    designs = _designs(config, run.seed)
    found = _scored(config, run, progress, designs)
    cells = [CellScore(design, **numbers) for design, numbers in zip(designs, found, strict=True)]
    return findings(config, cells, run, title=TITLE, question=QUESTION)


def _designs(config: WarningsConfig, seed: int) -> list[IVDesign]:
    """Draw from the whole grid, then from the designs that are easy; none comes twice."""
    from metier.bilevel.designs import design_grid

    whole = design_grid(
        shapes=config.shapes, sizes=config.sizes, strengths=config.strengths, cells=config.cells, seed=seed
    )
    easy = design_grid(
        shapes=config.shapes, sizes=config.easy_sizes, strengths=config.easy_strengths, suited=True
    )
    rest = [design for design in easy if design not in set(whole)]
    drawn = derive(seed, "easy").permutation(len(rest))[: config.easy_cells]
    return [*whole, *(rest[k] for k in sorted(drawn))]


def _scored(
    config: WarningsConfig, run: Run, progress: Progress, designs: Sequence[IVDesign]
) -> list[dict[str, Any]]:
    from metier_studies.lib.cells import journaled

    work = [(f"cell-{k}", design) for k, design in enumerate(designs)]
    score = partial(_score, replicates=config.seeds, seed=run.seed, look_every=config.look_every)
    return journaled(score, work, run, progress, workers=config.workers, words="designs")


FIGURES = ("coverage", "warned", "replicates", "expected", "kinds")


def _score(design: IVDesign, *, replicates: int, seed: int, look_every: int) -> dict[str, Any]:
    from metier.bilevel.designs import score_cell

    cell = score_cell(design, replicates=replicates, seed=seed, look_every=look_every)
    return {name: getattr(cell, name) for name in FIGURES}


STUDY = Study(
    name="bilevel-warnings",
    family="bilevel",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": WarningsConfig(
            sizes=(500,), cells=16, easy_sizes=(2000,), easy_cells=12, seeds=20, look_every=10
        ),
        "standard": WarningsConfig(),
        "full": WarningsConfig(cells=396, easy_cells=250, seeds=1000),
    },
    run=run_study,
    claims=("sensitivity", "false-alarms", "clear-sensitivity", "clear-false-alarms"),
    paired_on=(
        *("shapes", "sizes", "strengths", "cells"),
        *("easy_sizes", "easy_strengths", "easy_cells", "seeds", "look_every"),
    ),
)

"""Study `bilevel-paper`: the settings of the paper's figures, its tables beside ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from metier.runs import Progress, Result, Run, Study

TITLE = "Bilevel gradients: the paper's experiments, its tables beside ours"
QUESTION = "Do the published errors and coverages come out again, and by how much does debiasing help?"
SEED_1, SEED_4, SEED_B = 12345, 20260425, 20260425


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperConfig:
    """What the study repeats.

    Args:
        replicates: of Figures 1 and 4; the paper's 300 give its tables digit for digit.
        sizes_1, sizes_4: rows of Figures 1 and 4.
        kernel_replicates: of the kernel baselines; the first of the same seeds.
        kernel_sizes: rows at which Figure 4 has its kernel baseline.
        penalties: of the kernel baseline in Figure 3.
        bellman_replicates, bellman_sizes: of the Bellman designs.
    """

    replicates: int = 300
    sizes_1: tuple[int, ...] = (200, 400, 800, 1600, 3200)
    sizes_4: tuple[int, ...] = (100, 200, 400, 800, 1600)
    kernel_replicates: int = 100
    kernel_sizes: tuple[int, ...] = (100, 200, 400)
    penalties: tuple[float, ...] = (1e-5, 1e-4, 1e-2)
    bellman_replicates: int = 200
    bellman_sizes: tuple[int, ...] = (200, 400, 800, 1600, 3200)


def run_study(config: PaperConfig, run: Run, progress: Progress) -> Result:
    """Run each table's replicates as cells, then set them beside the paper's."""
    from metier_studies.bilevel_paper.findings import findings

    found: dict[str, Any] = {}
    for key, work in tasks(config, run.seed):
        found[key] = run.cell(key, work)
        progress.stage(f"{key}: done")
    return findings(config, found, run, title=TITLE, question=QUESTION)


def tasks(config: PaperConfig, seed: int) -> list[tuple[str, Callable[[], Any]]]:
    """Key and work of every cell; a seed other than 0 leaves the paper's own."""
    from metier_studies.bilevel_paper import replicates

    out: list[tuple[str, Callable[[], Any]]] = []
    for n, seeds in _grid(SEED_1 + seed, config.sizes_1, config.replicates, 1).items():
        out.append((f"figure-1/{n}", partial(replicates.figure_1_cell, n, seeds)))
    for n, seeds in _grid(SEED_4 + seed, config.sizes_4, config.replicates, 4).items():
        kernels = config.kernel_replicates if n in config.kernel_sizes else 0
        out.append((f"figure-4/{n}", partial(replicates.figure_4_cell, n, seeds, kernels)))
    seeds = _grid(SEED_1 + seed, (600,), config.kernel_replicates, 2)[600]
    out.append(("figure-3", partial(replicates.figure_3_cell, seeds, config.penalties)))
    for name in ("B1", "B2", "B3"):
        for n, drawn in _grid(SEED_B + seed, config.bellman_sizes, config.bellman_replicates, 1).items():
            out.append((f"bellman/{name}/{n}", partial(replicates.bellman_cell, name, n, drawn)))
    drawn = _grid(SEED_B + seed, (600,), config.kernel_replicates, 1)[600]
    out.append(("bellman/B4", partial(replicates.kernel_bellman_cell, drawn)))
    return out


def _grid(seed: int, sizes: tuple[int, ...], replicates: int, per: int) -> dict[int, list[list[int]]]:
    """Integer seeds as the authors draw them: one stream, sizes in turn, a few per replicate."""
    import numpy as np

    master = np.random.default_rng(seed)
    return {
        n: [[int(master.integers(0, 2**31 - 1)) for _ in range(per)] for _ in range(replicates)]
        for n in sizes
    }


STUDY = Study(
    name="bilevel-paper",
    family="bilevel",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": PaperConfig(
            replicates=40,
            sizes_1=(200, 800),
            sizes_4=(100, 400),
            kernel_replicates=5,
            kernel_sizes=(100,),
            bellman_replicates=20,
            bellman_sizes=(200, 800),
        ),
        "standard": PaperConfig(),
        "full": PaperConfig(
            kernel_replicates=300,
            kernel_sizes=(100, 200, 400, 800, 1600),
            penalties=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
        ),
    },
    run=run_study,
    claims=("figure-4-table", "figure-1-table", "less-error", "gradient-coverage", "bellman-root-coverage"),
    paired_on=("replicates", "sizes_1", "sizes_4", "bellman_replicates", "bellman_sizes"),
)

"""The replicates behind each table, a list of plain numbers per cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metier_studies.bilevel_paper import bellman, designs

Seeds = Sequence[Sequence[int]]
KERNEL_PENALTIES = {"kernel, fixed": (0.01, 0.0), "kernel, decaying": (0.05, -0.6)}
"""Scale and power of the rows."""
RIDGES = tuple(np.logspace(-5, -1, 5).tolist())


def figure_1_cell(n: int, seeds: Seeds) -> list[dict[str, Any]]:
    """Gradient errors of Figure 1."""
    return [designs.figure_1_gradients(n, np.random.default_rng(s[0])) for s in seeds]


def figure_4_cell(n: int, seeds: Seeds, kernels: int) -> list[dict[str, Any]]:
    """Root errors of Figure 4; the kernel baseline for the first replicates."""
    cells = []
    for k, (main, inner, outer, folds) in enumerate(seeds):
        found = designs.figure_4_roots(designs.figure_4(n, np.random.default_rng(main)), folds)
        if k < kernels:
            samples = [designs.figure_4(n, np.random.default_rng(s)) for s in (inner, outer)]
            for name, (scale, power) in KERNEL_PENALTIES.items():
                found[name] = designs.kernel_root(samples[0], samples[1], scale * n**power)
        cells.append(found)
    return cells


def figure_3_cell(seeds: Seeds, penalties: Sequence[float]) -> list[dict[str, Any]]:
    """Gradient errors of Figure 3: 600 inner and 600 outer rows."""
    cells = []
    for pair in seeds:
        inner, outer = (designs.figure_1(600, np.random.default_rng(s), confounded=True) for s in pair)
        found: dict[str, Any] = {"obigrad": designs.figure_3_gradient((inner, outer), pair[0])}
        for penalty in penalties:
            found[f"{penalty:g}"] = designs.kernel_gradient(inner, outer, penalty)
        cells.append(found)
    return cells


def bellman_cell(name: str, n: int, seeds: Seeds) -> list[dict[str, Any]]:
    """Errors of one Bellman design."""
    return [bellman.bellman_replicate(name, n, s[0]) for s in seeds]


def kernel_bellman_cell(seeds: Seeds) -> list[dict[str, Any]]:
    """B4: the kernel baseline on 600 + 600 rows, ours on the 1200."""
    cells = []
    for (seed,) in seeds:
        found: dict[str, Any] = {f"{r:g}": bellman.kernel_bellman(600, r, seed) for r in RIDGES}
        found["obigrad"] = bellman.bellman_replicate("B1", 1200, seed)["obigrad"]
        cells.append(found)
    return cells

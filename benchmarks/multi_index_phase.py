"""Time phase diagrams beside nested scipy quadrature and, where a checkout is given, beside tramp.

    python benchmarks/multi_index_phase.py
    python benchmarks/multi_index_phase.py --rival PATH      # a checkout of sphinxteam/tramp

Compilation is timed apart, in fresh processes: once with an empty cache, once with a warm one. Accuracy is
the relative error of lines and overlaps against single thresholds refined to 1e-9. Nested quadrature is timed
on single values and its time for the same table is an estimate by the number of values. Prints a table and
writes benchmarks/results/multi_index-phase.json; with --rival, the part beside tramp goes to
multi_index-tramp.json, so that a run without a checkout does not erase it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import Any

import numpy as np
from scipy.integrate import quad
from threadpoolctl import threadpool_limits

from metier.multi_index import Activation, as_activation, phase_diagram, thresholds
from metier.multi_index.fixed_points import NAMES
from metier.multi_index.overlap import node_overlaps
from metier.multi_index.phase_diagram import table_edges
from record import in_turn, table, timed, write

CASES = {
    "He4": {"snrs": (1e-3, 1.0), "sample_ratios": (0.5, 3e4), "normalize": True},
    "abs": {"snrs": (1e-3, 10.0), "sample_ratios": (0.1, 1e4), "normalize": False},
    "He3": {"snrs": (1e-4, 0.1), "sample_ratios": (1.0, 1e7), "normalize": True},
    "tanh": {"snrs": (1e-3, 10.0), "sample_ratios": (0.01, 1e4), "normalize": False},
}
COLD = "from metier.multi_index import phase_diagram; phase_diagram('abs', sample_ratios=[1.0], snrs=[1.0])"


def diagram(name: str, size: int) -> Any:
    case = CASES[name]
    return phase_diagram(
        name,
        snrs=np.geomspace(*case["snrs"], size),
        sample_ratios=np.geomspace(*case["sample_ratios"], size),
        normalize=case["normalize"],
    )


def accuracy(name: str, found: Any, rows: list[int]) -> dict[str, float]:
    """Relative errors of all finite lines and of all overlaps of some rows."""
    lines, overlaps = [], []
    for k in rows:
        exact = thresholds(name, snr=float(found.snrs[k]), normalize=CASES[name]["normalize"], rtol=1e-9)
        pairs = [(float(found.lines[n][k]), getattr(exact, n)) for n in NAMES]
        lines += [abs(a / b - 1) for a, b in pairs if np.isfinite(b) and b > 0]
        for start, q in found.overlaps.items():
            true = exact.overlap(found.sample_ratios, start=start)
            overlaps.append(np.abs(q[k] / np.where(true > 0, true, 1) - (true > 0)))
    cells = np.concatenate(overlaps)
    return {
        "lines_median": float(np.median(lines)) if lines else float("nan"),
        "lines_max": max(lines, default=float("nan")),
        "overlaps_median": float(np.median(cells)),
        "overlaps_median_of_nonzero": float(np.median(cells[cells > 0])) if (cells > 0).any() else 0.0,
        "overlaps_max": float(cells.max()),
    }


def compilation() -> dict[str, float]:
    """Wall seconds of a first diagram in a fresh process, with an empty and with a warm cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        run = partial(subprocess.run, [sys.executable, "-c", COLD], check=True, env=environment)
        return {"empty_cache": timed(run)[0], "warm_cache": timed(run)[0]}


def weak_recovery_by_quadrature(sigma: Activation, snr: float, tolerance: float) -> float:
    """1 / E_y[(E[z^2 - 1 | y])^2] by quad inside quad."""
    scale, ends = np.sqrt(snr), [-8.0, *sigma.kinks, 8.0]
    reach = scale * sigma(np.linspace(-6, 6, 201))

    def moment(y: float, degree: int) -> float:
        def integrand(z: float) -> float:
            value = np.exp(-0.5 * z * z - 0.5 * (y - scale * float(sigma(z))) ** 2) / (2 * np.pi)
            return value * (z * z - 1) if degree else value

        parts = itertools.pairwise(ends)
        return sum(quad(integrand, a, b, epsrel=tolerance, epsabs=1e-16, limit=100)[0] for a, b in parts)

    def information(y: float) -> float:
        Z = moment(y, 0)
        return moment(y, 2) ** 2 / Z if Z > 1e-250 else 0.0

    return 1 / quad(information, reach.min() - 7, reach.max() + 7, epsrel=tolerance, limit=100)[0]


def nested_quadrature(name: str, size: int, ours: float) -> dict[str, Any]:
    """Time of one nested value, and the estimate for a diagram's table of triple integrals."""
    sigma = as_activation(name, normalize=CASES[name]["normalize"])
    snr = float(np.sqrt(np.prod(CASES[name]["snrs"])))
    wall, cpu, value = timed(lambda: weak_recovery_by_quadrature(sigma, snr, 1e-7))
    fast_wall, fast_cpu, exact = timed(lambda: thresholds(sigma, snr=snr))
    power = int(sigma.parity == "even")
    values = size * node_overlaps(table_edges(power)).size
    # A value of F has one more integral, over the field: at least 21 points of the smallest rule.
    estimate = values * 21 * cpu
    return {
        "snr": snr,
        "one_weak_recovery_wall": wall,
        "one_weak_recovery_cpu": cpu,
        "all_thresholds_here_wall": fast_wall,
        "all_thresholds_here_cpu": fast_cpu,
        "relative_difference": abs(value / exact.weak_recovery - 1) if exact.weak_recovery else None,
        "table_values": values,
        "table_cpu_estimate": estimate,
        "estimate_over_ours": estimate / ours,
    }


def use_lists_of_networkx() -> None:
    """Let graph methods return lists, as in networkx 1, for which tramp was written."""
    import networkx as nx

    def listed(function: Any) -> Any:
        return lambda *arguments, **keywords: list(function(*arguments, **keywords))

    for name in ("predecessors", "successors"):
        setattr(nx.DiGraph, name, listed(getattr(nx.DiGraph, name)))
    nx.DiGraph.node = property(lambda graph: graph.nodes)
    nx.topological_sort = listed(nx.topological_sort)


def tramp(path: str) -> dict[str, Any]:
    """Noiseless |z| with a Gaussian prior: one fixed point and weak recovery, by tramp's binary search."""
    sys.path.insert(0, path)
    try:
        use_lists_of_networkx()
        from tramp.experiments import find_critical_alpha
        from tramp.experiments.critical_alpha import find_state_evolution_mse
        from tramp.models import glm_state_evolution
    except Exception as error:  # an old package fails in many ways; the table says which
        return {"not_measured": f"{type(error).__name__}: {error}"}
    # A mean of exactly 0 stops its state evolution at the uninformed point.
    model = {"model_builder": glm_state_evolution, "prior_type": "gaussian", "prior_mean": 0.01}
    errors = partial(find_state_evolution_mse, "x", 0.1, output_type="abs", **model)
    search = partial(
        find_critical_alpha, "x", 0.1, "random", 0.2, 1.0, alpha_tol=0.05, output_type="abs", **model
    )
    found: dict[str, Any] = {}
    for name, task in {"mse_at_0.8": partial(errors, 0.8), "weak_recovery": search}.items():
        try:
            wall, cpu, value = timed(task)
            found[name] = {"wall": wall, "cpu": cpu, "value": float(value)}
        except Exception as error:
            found[name] = {"not_measured": f"{type(error).__name__}: {error}"}
    wall, cpu, exact = timed(lambda: thresholds("abs", snr=np.inf))
    found["metier"] = {
        "wall": wall,
        "cpu": cpu,
        "weak_recovery": exact.weak_recovery,
        "perfect_recovery": exact.strong_recovery,
        "mse_at_0.8": float(1 - exact.overlap([0.8])[0]),
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rival", default=None, help="checkout of sphinxteam/tramp")
    parser.add_argument("--quadrature", nargs="*", default=["abs"], help="cases beside nested quadrature")
    options = parser.parse_args()
    with threadpool_limits(limits=2):
        compiled = compilation()
        times = in_turn({name: partial(diagram, name, options.size) for name in CASES}, options.repeats)
        errors = {}
        for name in CASES:
            rows = [round(share * (options.size - 1)) for share in (0.05, 0.35, 0.65)]
            errors[name] = accuracy(name, diagram(name, options.size), rows)
        nested = {
            name: nested_quadrature(name, options.size, times[name]["cpu_min"]) for name in options.quadrature
        }
    rows = [("", "wall s", "min s", "CPU s", "lines, median error", "overlaps, median", "overlaps, max")]
    for name, t in times.items():
        e = errors[name]
        rows.append(
            (
                name,
                *(f"{t[key]:.2f}" for key in ("wall_median", "wall_min", "cpu_median")),
                *(f"{e[key]:.0e}" for key in ("lines_median", "overlaps_median_of_nonzero", "overlaps_max")),
            )
        )
    print(f"{options.size} x {options.size} diagrams with all lines")
    print(table(rows))
    print(f"first diagram of a process: {compiled['empty_cache']:.1f} s compiling,", end=" ")
    print(f"{compiled['warm_cache']:.1f} s from the cache")
    for name, n in nested.items():
        print(f"{name}: one weak_recovery by nested quad {n['one_weak_recovery_cpu']:.2f} s,", end=" ")
        print(f"a table of F {n['estimate_over_ours']:.0f} times ours (estimate)")
    if options.rival:
        rival = tramp(options.rival)
        print("tramp:", rival)
        print("written:", write("multi_index-tramp", rival, seed=0).name)
    result = {
        "size": options.size,
        "times": times,
        "errors": errors,
        "compilation": compiled,
        "nested_quadrature": nested,
        "finished": time.strftime("%H:%M", time.gmtime()),
    }
    print("written:", write("multi_index-phase", result, seed=0).name)


if __name__ == "__main__":
    main()

"""Time the forecasting engine: one iteration beside its rivals, the sums, whole fits, the backends.

    python benchmarks/forecast.py iteration
    python benchmarks/forecast.py gram
    python benchmarks/forecast.py fit --n-series 100000
    python benchmarks/forecast.py backends

All rivals of a table run in turn in this one process with the same number of threads. Each mode prints a
table and writes benchmarks/results/forecast-MODE.json.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController, threadpool_limits

from metier.forecast import ClusterForecaster
from metier.forecast.partition.clustering import assign
from metier.forecast.partition.criterion import GramCriterion, prior_from
from metier.forecast.partition.stack import RunKey, Stack
from metier.forecast.regression.design import Design
from metier.forecast.regression.gram import GramTable, direct_gram, packed_gram
from metier.forecast.regression.threads import single_threaded_blas
from record import in_turn, ratio, table, timed, write
from regime_panels import regime_design, write_folder
from rivals import residual_iteration, rows_of, sklearn_iteration

PENALTY = 1.0
TYPICAL_ITERATIONS = 10
"""Iterations of one clustering run: measured means are 7 to 12."""


def gram_table(design: Design, train: tuple[int, int], val: tuple[int, int]) -> GramTable:
    return GramTable.build(design, [(train,), (val,)], active=np.ones(design.n_series, dtype=bool))


def gram_iteration(criterion: GramCriterion, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """Refit and assign from sums: one iteration of `metier.forecast.partition.clustering.cluster`."""
    stack = Stack(keys=(RunKey(window=0, n_clusters=n_clusters, start=0, shrinkage=0.0),))
    models = criterion.refit(stack, labels[None], None)
    moved, _ = assign(criterion, stack, models, labels[None], criterion.table.active)
    return moved[0]


def gram_losses(criterion: GramCriterion, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    stack = Stack(keys=(RunKey(window=0, n_clusters=n_clusters, start=0, shrinkage=0.0),))
    models = criterion.refit(stack, labels[None], None)
    return np.concatenate(criterion.score(stack, models, None, lambda _, losses: losses), axis=1).T


def iteration(options: argparse.Namespace) -> dict[str, Any]:
    """One refit-and-score-and-assign iteration, and a whole run from the values on."""
    n, k = options.n_series, options.n_clusters
    design = regime_design(n, options.n_steps, seed=options.seed, lags=options.lags)
    start = round(0.8 * options.n_steps)
    train, val = (design.max_lag, start), (start, options.n_steps)
    labels = np.random.default_rng(options.seed).integers(k, size=n).astype(np.int16)
    rows, summed = rows_of(design, train, val), gram_table(design, train, val)
    criterion = GramCriterion(table=summed, prior=prior_from(summed, penalty=PENALTY))
    with single_threaded_blas():
        costs = gram_losses(criterion, labels, k)
        ours = partial(gram_iteration, criterion, labels, k)
        moved = ours()
    by_residuals = partial(residual_iteration, rows, labels, k, penalty=PENALTY)
    by_sklearn = partial(sklearn_iteration, rows, labels, k, penalty=PENALTY)
    differences = {}
    for name, rival in (("numpy residuals", by_residuals), ("scikit-learn", by_sklearn)):
        other, other_labels = rival()
        differences[name] = float(np.abs(other / costs - 1.0).max())
        assert np.array_equal(other_labels, moved), name

    libraries = ThreadpoolController()  # found once, as one search does; it takes longer than an iteration

    def metier() -> None:
        with libraries.limit(limits=1, user_api="blas"):
            for _ in range(TYPICAL_ITERATIONS):
                ours()

    times = in_turn(
        {"metier": metier, "numpy residuals": by_residuals, "scikit-learn": by_sklearn},
        options.repeats,
        loops={"metier": TYPICAL_ITERATIONS},
    )
    build = in_turn(
        {"sums": partial(gram_table, design, train, val), "rows": partial(rows_of, design, train, val)}, 3
    )
    ratios = {name: ratio(times, name) for name in differences}
    whole = build["sums"]["wall_median"] + TYPICAL_ITERATIONS * times["metier"]["wall_median"]
    end_to_end = {
        name: (build["rows"]["wall_median"] + TYPICAL_ITERATIONS * times[name]["wall_median"]) / whole
        for name in differences
    }
    print(
        f"one iteration, {n:,} series x {options.n_steps} steps x {design.n_features} features x {k} clusters"
    )
    lines = [
        ("", "wall ms", "min ms", "CPU ms", "times metier", "by minima", f"whole run of {TYPICAL_ITERATIONS}")
    ]
    for name, t in times.items():
        r = ratios.get(name)
        extra = (
            (f"{r['wall_median']:.0f}", f"{r['wall_min']:.0f}", f"{end_to_end[name]:.1f}")
            if r
            else ("1", "1", "1")
        )
        lines.append(
            (name, *(f"{1e3 * t[key]:.1f}" for key in ("wall_median", "wall_min", "cpu_median")), *extra)
        )
    print(table(lines))
    print(f"sums {build['sums']['wall_median']:.3f} s, rows {build['rows']['wall_median']:.3f} s;", end=" ")
    print("largest relative cost difference", ", ".join(f"{name} {v:.1e}" for name, v in differences.items()))
    return {
        "n_series": n,
        "n_steps": options.n_steps,
        "n_features": design.n_features,
        "n_clusters": k,
        "times": times,
        "ratios": ratios,
        "build": build,
        "end_to_end_ratio": end_to_end,
        "end_to_end_iterations": TYPICAL_ITERATIONS,
        "largest_relative_cost_difference": differences,
    }


def gram(options: argparse.Namespace) -> dict[str, Any]:
    """Packed sums by boundary updates against explicit rows."""
    design = regime_design(options.n_series, options.n_steps, seed=options.seed, lags=options.lags)
    span = (design.max_lag, options.n_steps)
    part = design.take(slice(0, 2048))
    fast, slow = packed_gram(part, *span), direct_gram(part, *span)
    difference = float((np.abs(fast - slow).max(axis=0) / np.abs(slow).max(axis=0)).max())
    times = in_turn(
        {
            "metier": partial(packed_gram, part, *span),
            "explicit rows": partial(direct_gram, part, *span),
        },
        options.repeats,
    )
    whole = in_turn({"table": partial(gram_table, design, span, span)}, 3)
    print(f"sums of {part.n_series} series: {1e3 * times['metier']['wall_median']:.1f} ms,", end=" ")
    print(f"explicit rows {ratio(times, 'explicit rows')['wall_median']:.1f} times longer,", end=" ")
    print(f"largest relative difference {difference:.1e};", end=" ")
    print(f"{options.n_series:,} series {whole['table']['wall_median']:.3f} s")
    return {"times": times, "ratio": ratio(times, "explicit rows"), "difference": difference, "table": whole}


def fit(options: argparse.Namespace) -> dict[str, Any]:
    """A whole fit with the cross-fitted gate, from a folder of parquet files."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        write_folder(folder, options.n_series, options.n_steps, seed=options.seed)
        forecaster = ClusterForecaster(lags=options.lags, rng=options.seed)
        wall, cpu, _ = timed(lambda: forecaster.fit(folder))
        predict_wall, _, frame = timed(lambda: forecaster.predict(1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    report = forecaster.gate_report_
    result = {
        "n_series": options.n_series,
        "n_steps": options.n_steps,
        "wall": wall,
        "cpu": cpu,
        "predict_wall": predict_wall,
        "peak_gib": peak,
        "chosen": report.chosen,
        "n_clusters": forecaster.fitted_.n_clusters,
        "reason": report.reason,
        "losses": {name: c.loss for name, c in forecaster.candidates_.items()},
        "n_forecasts": len(frame),
    }
    print(
        f"fit of {options.n_series:,} x {options.n_steps} with the gate: {wall:.1f} s wall, {cpu:.1f} s CPU,",
        end=" ",
    )
    print(f"peak {peak:.2f} GiB (panel writing included); one step ahead in {predict_wall:.1f} s;", end=" ")
    print(f"chosen: {report.chosen}, K = {result['n_clusters']}")
    return result


def backends(options: argparse.Namespace) -> dict[str, Any]:
    """The same table and partition from every backend of `map_tasks`."""
    design = regime_design(options.n_series, options.n_steps, seed=options.seed, lags=options.lags)
    start = round(0.8 * options.n_steps)
    windows, active = (
        [((design.max_lag, start),), ((start, options.n_steps),)],
        np.ones(design.n_series, dtype=bool),
    )
    tables, seconds = {}, {}
    for name in ("serial", "joblib", "dask", "ray"):
        seconds[name], _, tables[name] = timed(
            partial(GramTable.build, design, windows, active=active, backend=name)
        )
    base = tables["serial"]
    assert base.stored is not None
    differences = {
        name: max(
            float(np.abs(ours - theirs).max())
            for a, b in zip(base.stored, other.stored or (), strict=True)
            for ours, theirs in zip(a.sums, b.sums, strict=True)
        )
        for name, other in tables.items()
    }
    print(
        table(
            [
                ("backend", "seconds", "largest difference"),
                *((n, f"{seconds[n]:.2f}", f"{differences[n]:.1e}") for n in seconds),
            ]
        )
    )
    return {"n_series": options.n_series, "seconds": seconds, "largest_difference": differences}


MODES = {"iteration": iteration, "gram": gram, "fit": fit, "backends": backends}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--n-series", type=int, default=10_000)
    parser.add_argument("--n-steps", type=int, default=300)
    parser.add_argument("--lags", type=int, default=24)
    parser.add_argument("--n-clusters", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="threads of ours and of every rival's BLAS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", default=None, help="folder for the parquet files of `fit`")
    options = parser.parse_args()
    with threadpool_limits(limits=options.threads):
        result = MODES[options.mode](options)
    name = f"forecast-{options.mode}" + (f"-{options.n_series}" if options.mode == "fit" else "")
    print("written:", write(name, {"threads": options.threads, **result}, seed=options.seed).name)


if __name__ == "__main__":
    main()

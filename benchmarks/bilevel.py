"""Time bilevel gradients: the Figure 4 study, a million rows, the cost beyond the nuisances, rivals.

    python benchmarks/bilevel.py figure4
    python benchmarks/bilevel.py million
    python benchmarks/bilevel.py overhead
    python benchmarks/bilevel.py rivals
    python benchmarks/bilevel.py genriesz

All rivals of a table run in turn in this one process with the same number of threads. Each mode prints a
table and writes benchmarks/results/bilevel-MODE.json.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from functools import partial
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LassoCV, Ridge
from sklearn.model_selection import KFold, cross_val_predict

from metier.bilevel import AffineTarget, BilevelProblem, GaussianRidge, OBiGrad, SieveRidge, Squared
from metier.bilevel.crossfit import RegressorCrossFit
from metier.core.parallel import map_tasks
from record import in_turn, ratio, table, timed, write

PROBLEM = BilevelProblem(Squared(AffineTarget(None, "T")), Squared("Y"))
SIZES = (100, 200, 400, 800, 1600)


def figure_4_data(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X = rng.normal(size=(n, 3))
    eta = rng.normal(0.0, np.sqrt(0.10), n)
    T = 2 * X.sum(axis=1) + eta
    return X, T, 2 * T + 0.5 * eta + rng.normal(0.0, 0.1, n)


def figure_4_replicate(task: tuple[int, tuple[int, ...]]) -> list[float]:
    """Root errors of plug-in, OBiGrad, adjoint-as-instrument, oracle, and the kernel rival twice."""
    n, seeds = task
    X, T, Y = figure_4_data(n, np.random.default_rng(seeds[0]))
    Z = {"T": T, "Y": Y}
    options: dict[str, Any] = {"learner": SieveRidge(penalty=1e-8), "folds": 2, "rng": seeds[3]}
    roots = [
        OBiGrad(PROBLEM, estimator=estimator, diagnose=False, **options).fit(X, Z).solve().w[0]
        for estimator in ("plugin", "obigrad", "adjoint_instrument")
    ]
    truth = {"jacobian": 2 * X.sum(axis=1), "outcome": 4 * X.sum(axis=1)}
    oracle = OBiGrad(PROBLEM, estimator="oracle").fit(X, Z, external_predictions=truth)
    roots.append(oracle.solve().w[0])
    X_in, T_in, _ = figure_4_data(n, np.random.default_rng(seeds[1]))
    X_out, _, Y_out = figure_4_data(n, np.random.default_rng(seeds[2]))
    for penalty in (0.01, 0.05 * n**-0.6):
        learner = GaussianRidge(width=2.0, penalty=penalty)
        model = OBiGrad(PROBLEM, estimator="kbo", learner=learner)
        roots.append(model.fit(X_in, {"T": T_in}, outer={"X": X_out, "Y": Y_out}).solve().w[0])
    return [root - 2.0 for root in roots]


def _figure_4_timed(task: tuple[int, tuple[int, ...]]) -> tuple[list[float], float]:
    """Return the errors and the CPU seconds that they took, which a busy machine hardly stretches."""
    start = time.process_time()
    errors = figure_4_replicate(task)
    return errors, time.process_time() - start


def figure4(options: argparse.Namespace) -> dict[str, Any]:
    """The whole study: 300 replicates x five sizes, all estimators."""
    master = np.random.default_rng(20260425)
    draws = [
        (n, tuple(int(master.integers(0, 2**31 - 1)) for _ in range(4)))
        for n in SIZES
        for _ in range(options.replicates)
    ]
    run = partial(map_tasks, _figure_4_timed, draws, backend=options.backend)
    wall, _, answers = timed(run)
    errors, seconds = zip(*answers, strict=True)
    cpu = sum(seconds)
    by_size = np.array(errors).reshape(len(SIZES), options.replicates, -1)
    rmse = np.sqrt((by_size**2).mean(axis=1))
    names = ("plug-in", "obigrad", "instrument", "oracle", "kbo fixed", "kbo decaying")
    print(
        table(
            [
                ("n", *names),
                *((str(n), *(f"{v:.4f}" for v in row)) for n, row in zip(SIZES, rmse, strict=True)),
            ]
        )
    )
    print(f"wall {wall:.1f} s, CPU of all replicates {cpu:.1f} s: {cpu / 2:.0f} s on two free cores")
    return {
        "wall": wall,
        "cpu_of_replicates": cpu,
        "backend": options.backend,
        "rmse": rmse.tolist(),
        "names": names,
    }


def linear_data(n: int, p: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    u = rng.normal(size=n)
    T = X @ np.linspace(1, 0.1, p) + u
    return X, {"T": T, "Y": 2 * T - u + rng.normal(size=n)}


def million(options: argparse.Namespace) -> dict[str, Any]:
    """One fit, gradient and root on a million rows of ten features, ridge nuisances."""
    X, Z = linear_data(options.rows, 10, options.seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def ours(learner: SieveRidge) -> Any:
        model = OBiGrad(PROBLEM, learner=learner).fit(X, Z)
        return model.hypergradient([2.0]), model.solve([0.0])

    out: dict[str, Any] = {"rows": options.rows, "data_gib": before}
    for name, learner in (("fixed penalty", SieveRidge(penalty=1.0)), ("tuned penalty", SieveRidge())):
        wall, cpu, (_, solution) = timed(partial(ours, learner))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        out[name] = {
            "wall": wall,
            "cpu": cpu,
            "peak_gib": peak,
            "root": solution.w.tolist(),
            "stderr": solution.stderr.tolist(),
        }
        print(f"{name}: {wall:.1f} s, peak {peak:.2f} GiB (data {before:.2f})")
    return out


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """A hypergradient beyond its nuisance fits, in CPU time: forests, a tuned lasso, ridge."""
    X, Z = linear_data(20_000, 10, options.seed)
    codes = np.random.default_rng(0).permutation(len(X)) % 5
    out = {}
    for name, learner, rounds, loops in (
        ("forest", RandomForestRegressor(20, min_samples_leaf=20, max_features=3, random_state=0), 1, 1),
        ("lasso", LassoCV(alphas=10, cv=3), 3, 6),
        ("scikit-learn ridge", Ridge(1.0), 5, 40),
    ):

        def nuisances(learner: Any = learner, loops: int = loops) -> None:
            for _ in range(loops):
                fitter = RegressorCrossFit(learner, X, codes, None)
                fitter.predict(Z["T"][:, None])
                fitter.predict((2.0 * Z["T"] - Z["Y"])[:, None])

        def whole(learner: Any = learner, loops: int = loops) -> None:
            for _ in range(loops):
                model = OBiGrad(PROBLEM, learner=learner, folds=codes, diagnose=False)
                model.fit(X, Z).hypergradient([2.0])

        # Neighbors in time share the machine's mood: the median of paired ratios of CPU seconds.
        both = {"nuisances": nuisances, "metier": whole}
        times = in_turn(both, options.repeats * rounds, loops=dict.fromkeys(both, loops))
        pairs = zip(times["nuisances"]["cpu"], times["metier"]["cpu"], strict=True)
        ratios = [whole_ / fits - 1.0 for fits, whole_ in pairs]
        share = statistics.median(ratios)
        low, high = min(ratios), max(ratios)
        out[name] = {**times, "extra_share": share, "extra_share_min": low, "extra_share_max": high}
        fits, all_of_it = (times[key]["cpu_median"] for key in ("nuisances", "metier"))
        print(
            f"{name}: nuisances {fits:.3f} CPU s, whole {all_of_it:.3f}, {100 * share:+.1f} % "
            f"[{100 * low:+.1f}, {100 * high:+.1f}]"
        )
    return out


def rivals(options: argparse.Namespace) -> dict[str, Any]:
    """The same partially linear IV with the same forests: metier, DoubleML, and plain scikit-learn."""
    import doubleml

    n, p = options.iv_rows, 10
    X, Z = linear_data(n, p, options.seed)
    forest = RandomForestRegressor(20, min_samples_leaf=20, max_features=3, random_state=0)
    folds = list(KFold(5, shuffle=True, random_state=0).split(X))
    codes = np.empty(n, dtype=int)
    for k, (_, test) in enumerate(folds):
        codes[test] = k

    def ours() -> tuple[float, float]:
        model = OBiGrad(PROBLEM, learner=forest, residual="separate", folds=codes, diagnose=False)
        solution = model.fit(X, Z).solve([0.0])
        return float(solution.w[0]), float(solution.stderr[0])

    def plain() -> tuple[float, float]:
        j, m = (cross_val_predict(forest, X, Z[c], cv=folds) for c in ("T", "Y"))
        T, Y = Z["T"], Z["Y"]
        S = np.mean((2 * T - j) * j)
        w = np.mean(Y * j + (T - j) * m) / S
        phi = (w * T - Y) * j + (T - j) * (w * j - m)
        return float(w), float(phi.std(ddof=1) / np.sqrt(n) / abs(S))

    # DoubleML wants one instrument and controls: the out-of-fold first stage (timed), and a useless control.
    def double_ml() -> tuple[float, float]:
        j = cross_val_predict(forest, X, Z["T"], cv=folds)
        data = doubleml.DoubleMLData.from_arrays(
            X[:, :1] * 0.0 + np.arange(n)[:, None] % 7, Z["Y"], Z["T"], z=j
        )
        model = doubleml.DoubleMLPLIV(data, forest, forest, forest, n_folds=5)
        model.fit()
        return float(model.coef[0]), float(model.se[0])

    times = in_turn({"metier": ours, "scikit-learn": plain, "DoubleML": double_ml}, options.repeats)
    found = {"metier": ours(), "scikit-learn": plain(), "DoubleML": double_ml()}
    np.testing.assert_allclose(found["metier"], found["scikit-learn"], rtol=1e-9)
    rows = [("", "seconds", "times ours", "root", "standard error")]
    for name, (w, se) in found.items():
        share = ratio(times, name)["wall_min"] if name != "metier" else 1.0
        rows.append((name, f"{times[name]['wall_min']:.3f}", f"{share:.2f}", f"{w:.4f}", f"{se:.4f}"))
    print(table(rows))
    return {"times": times, "estimates": found, "rows": n}


def genriesz(options: argparse.Namespace) -> dict[str, Any]:
    """Real data with one binary instrument: metier, its two-stage least squares, genriesz's effect ratio."""
    import rival_genriesz
    from metier.bilevel import IVBilevel
    from metier_studies.bilevel_iv.cases import CASES

    out: dict[str, Any] = {}
    rows = [("", "", "coefficient", "standard error", "CPU seconds")]
    for name in ("401ksubs", "card"):
        case = CASES[name]()
        data = case.y, case.t, case.z

        def ours(case: Any = case, data: Any = data) -> IVBilevel:
            return IVBilevel(rng=options.seed, repeats=5).fit(*data, controls=case.x)

        def theirs(case: Any = case, data: Any = data) -> Any:
            return rival_genriesz.estimate(*data, case.x)

        times = in_turn({"metier": ours, "genriesz": theirs}, options.repeats)
        iv = ours()
        two = iv.two_stage_least_squares_
        found = {
            "metier": (float(iv.coef_[0]), float(iv.stderr_[0])),
            "two-stage least squares": (float(two.coef[0]), float(two.stderr[0])),
            "genriesz": theirs(),
        }
        out[name] = {"n": len(case.y), "times": times, "estimates": found}
        for kind, (coef, stderr) in found.items():
            seconds = f"{times[kind]['cpu_median']:.2f}" if kind in times else ""
            rows.append((name, kind, f"{coef:.4f}", f"{stderr:.4f}", seconds))
    print(table(rows))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = {
        "figure4": figure4,
        "million": million,
        "overhead": overhead,
        "rivals": rivals,
        "genriesz": genriesz,
    }
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--replicates", type=int, default=300)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--iv-rows", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="joblib")
    options = parser.parse_args()
    write(f"bilevel-{options.mode}", modes[options.mode](options), seed=options.seed)


if __name__ == "__main__":
    main()

"""The cells of the study: a real data set by every estimator, and simulated replicates."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.bilevel import IVBilevel
from metier.bilevel.estimators.moments import Moments
from metier.bilevel.estimators.weak_instruments import anderson_rubin_set
from metier.core import InputError, information, require
from metier_studies.bilevel_iv.cases import CASES, Case

Floats = NDArray[np.float64]
MOST_GROUPS = 24
"""Values of discrete instruments, or of a discrete treatment."""


def fit_case(name: str, *, repeats: int, seed: int) -> dict[str, Any]:
    """Fit a real data set by the orthogonal score and its two simpler forms."""
    case = CASES[name]()
    options: dict[str, Any] = {"repeats": repeats, "rng": seed}
    arguments: dict[str, Any] = {"controls": case.x, "groups": case.groups}
    iv = IVBilevel(**options).fit(case.y, case.t, case.z, **arguments)
    others = {
        kind: IVBilevel(estimator=kind, **options).fit(case.y, case.t, case.z, **arguments)
        for kind in ("plugin", "adjoint_instrument")
    }
    plain = iv.to_dict()
    return {
        "question": case.question,
        "names": list(case.names),
        "truth": case.truth,
        "n": iv.n_,
        "coef": float(iv.coef_[0]),
        "stderr": float(iv.stderr_[0]),
        "others": {k: [float(o.coef_[0]), float(o.stderr_[0])] for k, o in others.items()},
        "two_stage": [plain["two_stage_least_squares"][key][0] for key in ("coef", "stderr")],
        "first_stage": plain["first_stage"]["rows"][0],
        "anderson_rubin": plain["anderson_rubin"],
        "anderson_rubin_text": iv.anderson_rubin_set().summary(),
        "over_identification": plain["over_identification"],
        "warnings": plain["warnings"],
        "encouragement": encouragement(case, seed=seed),
    }


def encouragement(case: Case, *, seed: int) -> dict[str, Any] | None:
    """How discrete instruments divide the rows, and what a row's group tells about its treatment.

    Returns:
        The groups' shares of the rows, largest first, and the information with its permutation null; None
        where instruments or treatment are not discrete, or come by clusters.
    """
    groups, members = np.unique(case.z, axis=0, return_counts=True)
    if len(groups) > MOST_GROUPS or len(np.unique(case.t)) > MOST_GROUPS or case.groups is not None:
        return None
    told = information(case.t, [tuple(row) for row in case.z.tolist()], permutations=199, rng=seed)
    return {
        "load": sorted((members / len(case.z)).tolist(), reverse=True),
        "information": told.value,
        "null_mean": told.null_mean,
        "p_value": told.p_value,
        "ceiling": told.ceiling,
    }


def rival_estimates(name: str, *, seed: int, path: str | None) -> dict[str, Any]:
    """Estimates of other libraries on the same rows; None where one is not installed."""
    case = CASES[name]()
    found: dict[str, Any] = {
        "linearmodels IV2SLS": _linearmodels(case),
        "DoubleML PLIV, linear": _doubleml(case, seed, boosted=False),
        "DoubleML PLIV, boosting": _doubleml(case, seed, boosted=True),
    }
    found["rival"] = None if path is None else _own_rival(case, Path(path))
    return found


def _linearmodels(case: Case) -> list[float] | None:
    if importlib.util.find_spec("linearmodels") is None:
        return None
    exogenous = np.column_stack([np.ones(len(case.y)), case.x])
    kind: dict[str, Any] = {"cov_type": "robust"}
    if case.groups is not None:
        kind = {"cov_type": "clustered", "clusters": case.groups}
    fit = require("linearmodels.iv").IV2SLS(case.y, exogenous, case.t, case.z).fit(**kind)
    return [float(fit.params.iloc[-1]), float(fit.std_errors.iloc[-1])]


def _doubleml(case: Case, seed: int, *, boosted: bool) -> list[float] | None:
    if importlib.util.find_spec("doubleml") is None or case.groups is not None:
        return None
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression

    doubleml = require("doubleml")
    data = doubleml.DoubleMLData.from_arrays(case.x, case.y, case.t, z=case.z)
    learner: Any = LinearRegression()
    if boosted:
        learner = HistGradientBoostingRegressor(max_depth=3, max_iter=100, random_state=0)
    state = np.random.get_state()  # noqa: NPY002 - their folds draw from NumPy's global stream
    try:
        np.random.seed(seed % 2**31)  # noqa: NPY002
        fit = doubleml.DoubleMLPLIV(data, learner, learner, learner, n_folds=5)
        fit.fit()
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return [float(fit.coef[0]), float(fit.se[0])]


def _own_rival(case: Case, path: Path) -> list[float] | None:
    """Call `estimate(y, t, z, x) -> (coefficient, standard error)`, or None, of a Python file."""
    spec = importlib.util.spec_from_file_location("rival", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InputError(
            "a rival is a Python file",
            expected="a file with a function estimate(y, t, z, x) -> (coefficient, standard error)",
            got=str(path),
            next_step="Write that function around the rival's own, and pass the file's path.",
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answer = module.estimate(case.y, case.t, case.z, case.x)
    return None if answer is None else [float(answer[0]), float(answer[1])]


def biased_plugin(n: int, *, seed: int) -> dict[str, Any]:
    """One replicate of the paper's root experiment: roots and coverage by estimator; the truth is 2."""
    from metier_studies.bilevel_paper.designs import figure_4, figure_4_roots

    rng = np.random.default_rng(seed)
    return figure_4_roots(figure_4(n, rng), rng)


def weak_design(n: int, strength: float, *, seed: int) -> dict[str, Any]:
    """One replicate with one instrument of a given strength: do Wald and Anderson-Rubin cover the truth 0?"""
    rng = np.random.default_rng(seed)
    z, u = rng.normal(size=(n, 1)), rng.normal(size=n)
    t = strength * z[:, 0] + 0.8 * u + 0.6 * rng.normal(size=n)
    y = u + 0.3 * rng.normal(size=n)
    iv = IVBilevel(rng=seed).fit(y, t, z)
    two = iv.two_stage_least_squares_
    assert two is not None
    low, high = iv.interval()[0]
    m = Moments(y - y.mean(), (t - t.mean())[:, None], z - z.mean(), np.ones(n))
    return {
        "ours": bool(low <= 0.0 <= high),
        "two_stage": bool(abs(two.coef[0]) <= 1.959963984540054 * two.stderr[0]),
        "anderson_rubin": anderson_rubin_set(m).contains(0.0),
        "warned": any("weak" in text for text in iv.warnings_),
        "f": iv.first_stage_.rows[0].f_effective,
    }

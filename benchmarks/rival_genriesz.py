"""genriesz as a rival of `metier run iv --set rival=benchmarks/rival_genriesz.py`.

genriesz has no estimand with instruments. With one binary instrument the ratio of two of its average effects
(of the instrument on the outcome and on the treatment, given the controls) is the local average treatment
effect; the standard error is that of the same effect on the outcome minus the ratio times the treatment,
over the effect on the treatment (delta method).
"""

from __future__ import annotations

import numpy as np


def estimate(y: np.ndarray, t: np.ndarray, z: np.ndarray, x: np.ndarray) -> tuple[float, float] | None:
    """Return coefficient and standard error, or None where the instrument is not one binary column."""
    import genriesz

    if z.shape[1] != 1 or not np.isin(z, (0.0, 1.0)).all():
        return None
    rows = np.column_stack([z, (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)])
    basis = genriesz.TreatmentInteractionBasis(base_basis=genriesz.PolynomialBasis(degree=1))

    def effect(outcome: np.ndarray) -> tuple[float, float]:
        found = genriesz.grr_ate(
            X=rows,
            Y=outcome,
            basis=basis,
            generator=genriesz.SquaredGenerator(C=0.0).as_generator(),
            cross_fit=True,
            folds=5,
            random_state=0,
            riesz_penalty="l2",
            riesz_lam=1e-3,
            estimators=("arw",),
        )
        (one,) = found.estimates.values()
        return float(one.estimate), float(one.se)

    first = effect(t)[0]
    ratio = effect(y)[0] / first
    return ratio, effect(y - ratio * t)[1] / abs(first)

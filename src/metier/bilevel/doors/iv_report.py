"""What `IVBilevel` says: its text, its plain values, its warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .summary_table import layout

if TYPE_CHECKING:
    from .iv import IVBilevel

SMALL_SAMPLE = 5000
"""Rows below which the luck of one division into folds is worth averaging out."""


def iv_text(iv: IVBilevel, level: float) -> str:
    """Return the tables as text of fixed width."""
    units = f"{iv.n_} rows" + ("" if iv.groups_ is None else f", {iv.moments_.n_units} clusters")
    facts = [
        ("outcome", iv.outcome_name_),
        ("treatment", ", ".join(iv.treatment_names_)),
        ("instruments", ", ".join(iv.instrument_names_)),
        ("controls", ", ".join(iv.control_names_) or "intercept only"),
        ("data", f"{units}; {iv.folds} folds x {iv.repeats}; estimator {iv.estimator}"),
    ]
    blocks = [iv.coefficients(level).lines()]
    if iv.has_enough_instruments:
        blocks.append(["First stage, given the controls", *iv.first_stage_.summary().splitlines()])
    blocks.append(_test_lines(iv, level))
    return layout("Instrumental variables, orthogonal cross-fitted score", facts, blocks, iv.warnings_)


def _test_lines(iv: IVBilevel, level: float) -> list[str]:
    lines = []
    linear, test = iv.two_stage_least_squares_, iv.over_identification_
    if linear is not None:
        pairs = zip(iv.feature_names_, linear.coef, linear.stderr, strict=True)
        lines += [f"2SLS, same residuals: {name} {c:.4g} (std err {s:.3g})" for name, c, s in pairs]
        if len(iv.feature_names_) == 1:
            found = iv.anderson_rubin_set(level)
            lines.append(f"Anderson-Rubin {100 * level:g} % set: {found.summary()}")
    words = "no instrument to spare"
    if test is not None:
        words = f"Hansen J, chi2({test.dof}) = {test.statistic:.3f}, p = {test.p_value:.3f}"
    return [*lines, f"Over-identification: {words}"]


def iv_dict(iv: IVBilevel, level: float) -> dict[str, Any]:
    """Return everything the summary shows as plain Python values."""
    linear, test = iv.two_stage_least_squares_, iv.over_identification_
    single = linear is not None and len(iv.feature_names_) == 1
    least_squares = None
    if linear is not None:
        least_squares = {"coef": linear.coef.tolist(), "stderr": linear.stderr.tolist()}
    return {
        "outcome": iv.outcome_name_,
        "treatment": list(iv.treatment_names_),
        "instruments": list(iv.instrument_names_),
        "controls": list(iv.control_names_),
        "n": iv.n_,
        "clusters": None if iv.groups_ is None else iv.moments_.n_units,
        "estimator": iv.estimator,
        "folds": iv.folds,
        "repeats": iv.repeats,
        "level": level,
        "coefficients": iv.coefficients(level).to_dict(),
        "covariance": iv.covariance_.tolist(),
        "first_stage": iv.first_stage_.to_dict() if iv.has_enough_instruments else None,
        "two_stage_least_squares": least_squares,
        "anderson_rubin": iv.anderson_rubin_set(level).to_dict() if single else None,
        "over_identification": None if test is None else test.to_dict(),
        "warnings": list(iv.warnings_),
    }


def iv_warnings(iv: IVBilevel) -> tuple[str, ...]:
    """Return sentences about the instruments and the data, after those of the gradient itself."""
    found = [_sentence(text) for text in iv.solution_.warnings]
    d, k = len(iv.feature_names_), len(iv.instrument_names_)
    if iv.has_enough_instruments and iv.first_stage_.weak:
        remedy = "read the Anderson-Rubin set" if d == 1 else "test values with anderson_rubin(w)"
        what = ", ".join(iv.first_stage_.weak)
        found.append(f"The instruments are weak for {what}: Wald intervals may be far off; {remedy}.")
    if k >= d and not iv.has_enough_instruments:
        found.append(
            "The instruments repeat each other, or outnumber the rows or clusters: two-stage least squares "
            "and the tests built on it are left out; leave out what repeats, or test a subset."
        )
    if k < d:
        found.append(
            f"{d} features rest on {k} instruments: only non-linear dependence of the treatment on them "
            "identifies the curve, and linear tests of strength do not apply."
        )
    test = iv.over_identification_
    if test is not None and test.p_value < 0.05:
        found.append(
            f"The instruments disagree (Hansen J, p = {test.p_value:.3g}): each moves others, for whom the "
            "effect differs, or one acts on the outcome directly; compare them one by one."
        )
    if iv.repeats == 1 and iv.control_names_ and iv.n_ < SMALL_SAMPLE:
        found.append("One division into folds on a small sample: pass repeats=5 to average its luck out.")
    return tuple(dict.fromkeys(found))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")

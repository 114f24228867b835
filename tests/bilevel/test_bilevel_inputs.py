"""What is refused, and in which words; and that derivatives are differences of one another."""

from __future__ import annotations

import numpy as np
import pytest
from exact_law import PROBLEMS, W, random_law
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor

from metier.bilevel import (
    AffineTarget,
    BilevelProblem,
    ColumnTarget,
    ColumnWeight,
    CustomLoss,
    ExponentialWeight,
    GaussianRidge,
    LogCosh,
    OBiGrad,
    SieveRidge,
    SmoothPinball,
    SoftmaxCE,
    Squared,
    check_loss,
)
from metier.core import InputError

AFFINE = BilevelProblem(Squared(AffineTarget(None, "T")), Squared("Y"))
GENERAL = BilevelProblem(LogCosh(AffineTarget(None, "T")), Squared("Y"))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2))
Z = {"T": X[:, 0] + RNG.normal(size=60), "Y": RNG.normal(size=60)}


def refused(match, call):
    with pytest.raises(InputError, match=match):
        call()


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_loss_should_agree_with_finite_differences(name):
    law, problem = random_law(0), PROBLEMS[name]
    q = problem.outputs(law.rows)
    v = np.random.default_rng(1).normal(size=(30, q))
    for loss in (problem.inner_loss, problem.outer_loss):
        check_loss(loss, W, v, law.rows)
    at = problem.inner_loss.derivatives(W, v, law.rows)
    assert at.value.shape == (30,)


def wrong(**parts):
    right = {
        "d_v": lambda w, v, z: 2 * (v - w[0]),
        "d2_v": lambda w, v, z: np.full((len(v), 1, 1), 2.0),
        "d_w": lambda w, v, z: -2 * (v - w[0]),
        "d2_wv": lambda w, v, z: np.full((len(v), 1, 1), -2.0),
    }
    return CustomLoss(lambda w, v, z: (v[:, 0] - w[0]) ** 2, **{**right, **parts})


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"d_v": lambda w, v, z: v}, "d_v"),
        ({"d2_v": lambda w, v, z: np.ones((len(v), 1, 1))}, "d2_v"),
        ({"d2_wv": None}, "d2_wv"),
        ({"d3_v": lambda w, v, z: np.ones((len(v), 1, 1, 1))}, "d3_v"),
        ({"d_w": lambda w, v, z: np.full((len(v), 1), np.nan)}, "d_w"),
    ],
)
def test_a_wrong_derivative_should_be_named(parts, named):
    check_loss(wrong(), np.ones(1), np.zeros((3, 1)), {"X": np.zeros((3, 1))})
    model = OBiGrad(BilevelProblem(wrong(**parts), Squared("Y")), learner=SieveRidge(penalty=1.0)).fit(X, Z)
    refused(
        f"inner loss agree with finite differences: expected {named} within",
        lambda: model.hypergradient([1.0]),
    )


def test_a_wrong_layout_should_be_named():
    loss = wrong(d2_v=lambda w, v, z: np.full((len(v), 1), 2.0))
    refused(
        r"d2_v of the loss has a fixed layout: expected shape \(3, 1, 1\), got \(3, 1\)",
        lambda: check_loss(loss, np.ones(1), np.zeros((3, 1)), {"X": np.zeros((3, 1))}),
    )


CASES = {
    "a column that is not there": (
        r"a column 'T', got X, Y",
        lambda: OBiGrad(AFFINE).fit(X, {"Y": Z["Y"]}),
    ),
    "lengths": (
        r"Z\['T'\] has one entry per row of X: expected 60 rows, got 59",
        lambda: OBiGrad(AFFINE).fit(X, {**Z, "T": Z["T"][1:]}),
    ),
    "NaN in Z": (
        r"Z\['Y'\] is finite everywhere",
        lambda: OBiGrad(AFFINE).fit(X, {**Z, "Y": np.full(60, np.nan)}),
    ),
    "NaN in X": ("X is finite everywhere", lambda: OBiGrad(AFFINE).fit(np.full((60, 1), np.nan), Z)),
    "constant instruments": (r"\(instruments\) that vary", lambda: OBiGrad(AFFINE).fit(np.ones((60, 2)), Z)),
    "X without rows": ("X is a table of covariates", lambda: OBiGrad(AFFINE).fit(np.zeros((0, 2)), Z)),
    "few clusters": (
        "expected at least 5 clusters, got 3. Lower folds to 3",
        lambda: OBiGrad(AFFINE).fit(X, Z, groups=np.arange(60) % 3),
    ),
    "few rows": (
        "expected at least 5 rows, got 3",
        lambda: OBiGrad(AFFINE).fit(X[:3], {k: v[:3] for k, v in Z.items()}),
    ),
    "groups of another length": (
        "groups has one entry per row",
        lambda: OBiGrad(AFFINE).fit(X, Z, groups=[1, 2]),
    ),
    "weights": (
        "weights are positive: expected numbers above 0, got -1 in row 4",
        lambda: OBiGrad(AFFINE).fit(X, Z, weights=np.where(np.arange(60) == 4, -1.0, 1.0)),
    ),
    "given folds": (
        "given folds name the fold of every row",
        lambda: OBiGrad(AFFINE, folds=[0, 1]).fit(X, Z),
    ),
    "folds across clusters": (
        "rows of one cluster share a fold",
        lambda: OBiGrad(AFFINE, folds=np.arange(60) % 2).fit(X, Z, groups=np.arange(60) // 2),
    ),
    "w of another length": (
        "w has one entry per column of dg: expected 1 entries, got 2",
        lambda: OBiGrad(AFFINE).fit(X, Z).hypergradient([1.0, 2.0]),
    ),
    "w of another length, weights": (
        "w has one entry per feature of an ExponentialWeight",
        lambda: (
            OBiGrad(BilevelProblem(Squared("Y", weight=ExponentialWeight("T")), Squared("Y")))
            .fit(X, Z)
            .hypergradient([1.0, 2.0])
        ),
    ),
    "NaN in w": ("w is finite everywhere", lambda: OBiGrad(AFFINE).fit(X, Z).hypergradient([np.nan])),
    "not fitted": (
        "data come first: expected fit before hypergradient",
        lambda: OBiGrad(AFFINE).hypergradient([1.0]),
    ),
    "no problem": ("OBiGrad takes a problem", lambda: OBiGrad("problem")),
    "no loss": ("inner_loss is a loss", lambda: BilevelProblem("squared", Squared("Y"))),
    "estimator": ("estimator is one of a fixed list", lambda: OBiGrad(AFFINE, estimator="obgrad")),
    "one fold": ("folds is a whole number", lambda: OBiGrad(AFFINE, folds=1)),
    "learner": ("learner of nuisance 'h' is a regressor", lambda: OBiGrad(AFFINE, learner="ridge").fit(X, Z)),
    "learner's name": (
        "learner goes by the names of nuisances",
        lambda: OBiGrad(AFFINE, learner={"first": LinearRegression()}).fit(X, Z),
    ),
    "penalty": (
        "penalty of a SieveRidge",
        lambda: OBiGrad(AFFINE, learner=SieveRidge(penalty=-1.0)).fit(X, Z),
    ),
    "kernel width": ("width of a GaussianRidge", lambda: GaussianRidge(width=0.0).fit(X, Z["T"])),
    "weights and neighbors": (
        "weights reach every nuisance learner: .* sample_weight, got KNeighbors",
        lambda: OBiGrad(AFFINE, learner=KNeighborsRegressor()).fit(X, Z, weights=np.full(60, 2.0)),
    ),
    "singular": (
        "singular or indefinite system at penalty 0",
        lambda: OBiGrad(AFFINE, learner=SieveRidge(penalty=0.0)).fit(np.column_stack([X, X[:, 0]]), Z),
    ),
    "non-positive curvature": (
        "positive curvature",
        lambda: (
            OBiGrad(
                BilevelProblem(Squared("Y", weight=ColumnWeight("m")), Squared("Y")),
                learner=SieveRidge(penalty=0.0),
            )
            .fit(X, {**Z, "m": np.full(60, -1.0)})
            .hypergradient([0.0])
        ),
    ),
    "non-positive curvature, regressor": (
        "positive curvature",
        lambda: (
            OBiGrad(
                BilevelProblem(Squared("Y", weight=ColumnWeight("m")), Squared("Y")),
                learner=LinearRegression(),
            )
            .fit(X, {**Z, "m": np.full(60, -1.0)})
            .hypergradient([0.0])
        ),
    ),
    "a root without slope": (
        "the root is identified",
        lambda: (
            OBiGrad(AFFINE, learner=SieveRidge(penalty=1.0))
            .fit(X, {**Z, "T": np.column_stack([Z["T"], Z["T"]])})
            .solve()
        ),
    ),
    "instrument of another loss": (
        '"adjoint_instrument" is one of squared losses',
        lambda: OBiGrad(GENERAL, estimator="adjoint_instrument").fit(X, Z),
    ),
    "kbo of another loss": (
        '"kbo" is one of affine squared problems',
        lambda: OBiGrad(GENERAL, estimator="kbo").fit(X, Z),
    ),
    "kbo with a ridge": (
        '"kbo" learns with a kernel',
        lambda: OBiGrad(AFFINE, estimator="kbo", learner=LinearRegression()).fit(X, Z),
    ),
    "kbo with weights": (
        '"kbo" takes rows of equal weight',
        lambda: OBiGrad(AFFINE, estimator="kbo").fit(X, Z, weights=np.full(60, 2.0)),
    ),
    "oracle without truth": ('"oracle" fits nothing', lambda: OBiGrad(AFFINE, estimator="oracle").fit(X, Z)),
    "oracle without truth, general": (
        '"oracle" fits nothing',
        lambda: OBiGrad(GENERAL, estimator="oracle").fit(X, Z).hypergradient([1.0]),
    ),
    "restricted and tuned": (
        "takes the penalized sieve itself",
        lambda: OBiGrad(AFFINE, inner_class="restricted").fit(X, Z),
    ),
    "restricted and external": (
        '"restricted" fits in sample',
        lambda: OBiGrad(AFFINE, inner_class="restricted", learner=SieveRidge(penalty=1.0)).fit(
            X, Z, external_predictions={"h": Z["T"]}
        ),
    ),
    "external shape": (
        r"external prediction of 'jacobian': expected shape \(60, 1\), got \(59,\)",
        lambda: OBiGrad(AFFINE).fit(X, Z, external_predictions={"jacobian": Z["T"][1:]}),
    ),
    "external NaN": (
        "external prediction of 'jacobian' is finite",
        lambda: OBiGrad(AFFINE).fit(X, Z, external_predictions={"jacobian": np.full(60, np.nan)}),
    ),
    "external name": (
        "external_predictions goes by the names",
        lambda: OBiGrad(AFFINE).fit(X, Z, external_predictions={"j": Z["T"]}),
    ),
    "outer without X": (
        "the outer sample has covariates",
        lambda: OBiGrad(AFFINE).fit(X, Z, outer={"Y": Z["Y"]}),
    ),
    "two samples and a regressor": (
        "two samples need sums of both in one system",
        lambda: (
            OBiGrad(AFFINE, learner=LinearRegression()).fit(X, Z, outer={"X": X, **Z}).hypergradient([1.0])
        ),
    ),
    "start": (
        "a solver starts somewhere",
        lambda: (
            OBiGrad(BilevelProblem(Squared("Y", weight=ExponentialWeight("T")), Squared("Y")))
            .fit(X, Z)
            .solve()
        ),
    ),
    "method": ("method is one of a fixed list", lambda: OBiGrad(AFFINE).fit(X, Z).solve(method="adam")),
    "stop": ("stop is one of a fixed list", lambda: OBiGrad(AFFINE).fit(X, Z).solve(stop="never")),
    "objective of kbo": (
        "the objective needs an adjoint",
        lambda: OBiGrad(AFFINE, estimator="kbo").fit(X, Z).objective([1.0]),
    ),
    "a target that rests": (
        "the inner target moves with w",
        lambda: (
            OBiGrad(BilevelProblem(Squared(ColumnTarget("T")), Squared("Y"))).fit(X, Z).hypergradient([1.0])
        ),
    ),
    "labels": (
        "SoftmaxCE counts classes from 0",
        lambda: SoftmaxCE("c", n_classes=3).target_of(np.zeros(1), {"c": np.array([1.0, 3.0])}),
    ),
    "pinball": ("a smoothed pinball loss has a level", lambda: SmoothPinball("Y", smoothing=0.0)),
    "classifier of another loss": (
        "a classifier learns h of a logistic or softmax",
        lambda: OBiGrad(GENERAL, learner={"h": LogisticRegression()}).fit(X, Z).hypergradient([1.0]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_should_be_refused_in_clear_words(case):
    refused(*CASES[case])

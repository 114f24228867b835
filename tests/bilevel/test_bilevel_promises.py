"""What arguments promise: none is read by halves or ignored, and nothing of one fit is left to the next."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor

from metier.bilevel import (
    AffineTarget,
    BilevelProblem,
    CustomLoss,
    ExponentialWeight,
    FittedBellman,
    FunctionTarget,
    Huber,
    IVBilevel,
    LogCosh,
    Logistic,
    OBiGrad,
    Poisson,
    SieveRidge,
    SoftmaxCE,
    SourceReweighting,
    Squared,
    check_loss,
)
from metier.core import InputError

RNG = np.random.default_rng(0)
N = 200
X = RNG.normal(size=(N, 2))
T = X[:, 0] + RNG.normal(size=N)
Y = 2 * T + RNG.normal(size=N)
Z = {"T": T, "Y": Y}
AFFINE = BilevelProblem(Squared(AffineTarget(None, "T")), Squared("Y"))
GENERAL = BilevelProblem(LogCosh(AffineTarget(None, "T"), delta=3.0), Squared("Y"))
RIDGE = SieveRidge(penalty=1.0)


def fitted(problem=AFFINE, rows=None, *, external=None, **options):
    model = OBiGrad(problem, **{"learner": RIDGE, "diagnose": False, **options})
    return model.fit(X, Z if rows is None else rows, external_predictions=external)


def test_squared_losses_of_two_values_should_use_both():
    rows = {"g": np.column_stack([Y, -Y]), "dg": np.stack([T, -3 * T], 1)[:, None, :]}
    rows["Y"] = np.column_stack([Y, 5 * Y])
    inner = Squared(AffineTarget("g", "dg"))
    asked = fitted(BilevelProblem(inner, Squared("Y")), rows).hypergradient([1.0])
    said = fitted(BilevelProblem(inner, Squared("Y"), n_outputs=2), rows).hypergradient([1.0])
    np.testing.assert_array_equal(asked.value, said.value)
    singles = 0.0
    for k in (0, 1):
        column = {"g": rows["g"][:, k], "dg": rows["dg"][:, :, k], "Y": rows["Y"][:, k]}
        singles = singles + fitted(BilevelProblem(inner, Squared("Y")), column).hypergradient([1.0]).plugin
    np.testing.assert_allclose(asked.plugin, singles, rtol=1e-10)


WIDE = {**Z, "Y": np.column_stack([Y, 5 * Y])}
TWO = FunctionTarget(
    lambda w, z: w[0] * np.column_stack([z["T"]] * 2), lambda w, z: np.ones((len(z["T"]), 1, 2))
)


@pytest.mark.parametrize(
    ("match", "call"),
    [
        ("the outer target has one value per row", lambda: fitted(rows=WIDE)),
        (
            "the target of Squared is as wide as the inner solution",
            lambda: fitted(GENERAL, WIDE).hypergradient([1.0]),
        ),
        (
            "the inner target has one value per row",
            lambda: fitted(BilevelProblem(Squared(TWO), Squared("Y"))).hypergradient([1.0]),
        ),
        (
            "external prediction of 'residual' is of use here",
            lambda: fitted(GENERAL, external={"residual": T}),
        ),
        (
            "external prediction of 'adjoint_jacobian' is of use here",
            lambda: fitted(external={"adjoint_jacobian": T}),
        ),
        (
            r"external prediction of 'residual' moves with w: expected a function of \(w, X\)",
            lambda: fitted(external={"jacobian": X[:, 0], "residual": -X[:, 0]}).solve(),
        ),
        ("the target of Logistic is in its range", lambda: at_zero(Logistic("B"), np.sign(Y))),
        ("the target of Poisson is in its range", lambda: at_zero(Poisson("B"), Y)),
        ("delta of Huber is a scale", lambda: Huber("Y", delta=-1.0)),
        ("delta of LogCosh is a scale", lambda: LogCosh("Y", delta=0.0)),
        ("n_classes is a whole number", lambda: SoftmaxCE("Y", n_classes=1)),
        (
            "'adjoint_instrument' is one of|is one of squared losses",
            lambda: two_samples("adjoint_instrument"),
        ),
        ("estimator is one of a fixed list", lambda: IVBilevel(estimator="kbo")),
        ("estimator is one of a fixed list", lambda: FittedBellman(discount=0.5, estimator="oracle")),
        (
            "controls 150, weights 200",
            lambda: IVBilevel().fit(Y, T, X[:, 0], controls=X[:150, 1], weights=np.ones(N)),
        ),
        (
            "source has one entry per row of X",
            lambda: SourceReweighting().fit(X, Y, np.arange(N - 1) % 3, trusted=0),
        ),
        (
            "next_features is finite",
            lambda: FittedBellman(discount=0.5).fit(X, Y, np.full((N, 1), np.nan), outcome=Y),
        ),
        (
            'inner_class="restricted" has an effect: expected estimator="obigrad" or "plugin"',
            lambda: fitted(inner_class="restricted", estimator="oracle"),
        ),
        (
            'inner_class="restricted" has an effect',
            lambda: fitted(inner_class="restricted", estimator="kbo", learner=None),
        ),
        ("nested=True has an effect", lambda: fitted(nested=True)),
        ("nested=True has an effect", lambda: fitted(GENERAL, nested=True, inner_class="restricted")),
        ('residual="separate" has an effect', lambda: fitted(GENERAL, residual="separate")),
        (
            "next_features has one entry per transition: expected 200 rows, as X has, got shape",
            lambda: FittedBellman(discount=0.5).fit(X, Y, X[:150], outcome=Y),
        ),
        (
            "reward has one entry per transition",
            lambda: FittedBellman(discount=0.5).fit(X, Y[:150], X, features=X),
        ),
        (
            "outcome has one entry per transition",
            lambda: FittedBellman(discount=0.5).fit(X, Y, X, outcome=Y[:150]),
        ),
        ("X has the columns of fit: expected 2, got 1", lambda: sources().predict(X[:, :1])),
        (
            "log_weights has one entry per free source: expected 1, got 2",
            lambda: sources().predict(X, log_weights=[0.0, 0.0]),
        ),
        (
            "the objective needs an adjoint and an inner solution",
            lambda: oracle_without_h().objective([1.0]),
        ),
    ],
)
def test_what_would_be_ignored_should_be_refused(match, call):
    with pytest.raises(InputError, match=match):
        call()


def at_zero(loss, labels):
    inner = type(loss)(loss.target, weight=ExponentialWeight("u"))
    rows = {"B": labels, "u": 0.1 * X[:, 0], "Y": Y}
    return fitted(BilevelProblem(inner, Squared("Y")), rows).hypergradient([0.0])


def sources():
    return SourceReweighting(rng=0).fit(X, Y, np.arange(N) % 3, trusted=0, judge=False)


def two_samples(estimator):
    return OBiGrad(AFFINE, learner=RIDGE, estimator=estimator).fit(X, Z, outer={"X": X, **Z})


def oracle_without_h():
    moving = FunctionTarget(lambda w, z: w[0] * z["T"], lambda w, z: z["T"][:, None])
    problem = BilevelProblem(Squared(moving), Squared("Y"))
    return fitted(problem, estimator="oracle", external={"jacobian": X[:, 0], "residual": -X[:, 0]})


def test_two_samples_should_be_cut_into_the_same_folds():
    model = OBiGrad(AFFINE, learner=RIDGE, folds=(np.arange(N) % 2, np.arange(N) % 3))
    with pytest.raises(InputError, match="both samples are cut into the same folds: expected 2 folds"):
        model.fit(X, Z, outer={"X": X, **Z})


@pytest.mark.parametrize("problem", [AFFINE, GENERAL], ids=["squared", "log-cosh"])
def test_plugin_objective_should_be_the_outer_loss_at_the_fit(problem):
    plugin = fitted(problem, estimator="plugin")
    found = plugin.objective([1.0])
    assert found.method == "plug-in"
    assert found.value != pytest.approx(fitted(problem).objective([1.0]).value, rel=1e-4)
    if problem is AFFINE:
        repeat = plugin.repeats_[0]
        h = repeat.affine.h0 + repeat.affine.j[:, 0]
        assert found.value == pytest.approx(np.mean((Y - h) ** 2) / 2, rel=1e-12)


@pytest.mark.parametrize("problem", [AFFINE, GENERAL], ids=["squared", "log-cosh"])
def test_21_a_learner_without_random_state_should_draw_from_the_seed(problem):
    forest = RandomForestRegressor(4, min_samples_leaf=10)
    values = [fitted(problem, learner=forest, folds=2, rng=5).hypergradient([1.0]).value for _ in range(2)]
    assert values[0].tobytes() == values[1].tobytes()
    assert fitted(problem, learner=forest, folds=2, rng=6).hypergradient([1.0]).value != values[0]
    assert forest.random_state is None
    iv = [
        IVBilevel(control_learner=forest, rng=1).fit(Y, T, X[:, 0], controls=X[:, 1:]).coef_ for _ in range(2)
    ]
    assert iv[0].tobytes() == iv[1].tobytes()


def test_slope_of_a_forest_should_be_near_that_of_a_smooth_learner():
    """Over a step of 0.001 jumps of the trees made slopes between -9 and 6 where 1 is right."""
    from metier.bilevel.roots import difference_slope

    forest = RandomForestRegressor(10, min_samples_leaf=10, random_state=0)
    rough, smooth = (fitted(GENERAL, learner=one, folds=2) for one in (forest, RIDGE))
    for w in (1.9, 2.05, 2.2):
        at = np.array([w])
        wide = difference_slope(rough._estimate, at, rough=True)[0, 0]
        assert wide == pytest.approx(difference_slope(smooth._estimate, at)[0, 0], rel=0.35)
        assert rough._slope(at)[0, 0] == wide
    assert any("jump with w" in text for text in rough.solve([2.0], max_steps=1).warnings)
    assert not any("jump with w" in text for text in smooth.solve([2.0]).warnings)


def test_a_loss_of_tiny_numbers_should_be_checked_as_closely():
    def loss(factor):
        return CustomLoss(
            lambda w, v, z: 1e-6 * (v[:, 0] - w[0]) ** 2 / 2,
            d_v=lambda w, v, z: factor * 1e-6 * (v - w[0]),
            d2_v=lambda w, v, z: np.full((len(v), 1, 1), 1e-6),
            d_w=lambda w, v, z: -1e-6 * (v - w[0]),
            d2_wv=lambda w, v, z: np.full((len(v), 1, 1), -1e-6),
        )

    at = np.ones(1), np.linspace(-1, 1, 5)[:, None], {"X": np.zeros((5, 1))}
    check_loss(loss(1.0), *at)
    with pytest.raises(InputError, match="expected d_v within"):
        check_loss(loss(1.01), *at)


def test_kernel_rival_should_repeat():
    model = OBiGrad(AFFINE, estimator="kbo", repeats=3, diagnose=False).fit(X, Z)
    values = [e.mean(e.orthogonal).value[0] for e in model._evaluate(np.ones(1))]
    assert len(set(values)) == 3
    assert model.hypergradient([1.0]).value[0] == np.median(values)


def test_frames_of_truth_values_should_be_numbers():
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1] > 0})
    as_numbers = OBiGrad(AFFINE, learner=RIDGE).fit(frame.astype(float), Z).hypergradient([1.0])
    assert OBiGrad(AFFINE, learner=RIDGE).fit(frame, Z).hypergradient([1.0]).value == as_numbers.value
    frame.loc[3, "a"] = np.nan
    with pytest.raises(InputError, match="X is finite everywhere"):
        OBiGrad(AFFINE, learner=RIDGE).fit(frame, Z)


def test_a_second_fit_should_forget_the_tables_of_the_first():
    iv = IVBilevel(rng=0).fit(Y, T, X)
    before = iv.summary()
    iv.fit(Y, X[:, 1] + 0.1 * T, X)
    assert iv.summary() != before
    assert iv.summary() == IVBilevel(rng=0).fit(Y, X[:, 1] + 0.1 * T, X).summary()
    assert iv.first_stage_.rows[0].partial_r2 > 0.9


def test_seeds_of_numpy_should_be_seeds():
    assert IVBilevel(rng=np.int64(3)).fit(Y, T, X).coef_ == IVBilevel(rng=3).fit(Y, T, X).coef_
    one, two = (
        SourceReweighting(rng=seed).fit(X, Y, np.arange(N) % 3, trusted=0, judge=False)
        for seed in (np.int64(3), 3)
    )
    assert one.weights_ == two.weights_


def test_named_columns_should_go_with_arrays_of_weights_and_groups():
    frame = pd.DataFrame({"y": Y, "t": T, "z": X[:, 0], "m": 1.0 + (X[:, 1] > 0), "g": np.arange(N) // 4})
    by_name = IVBilevel(rng=0).fit("y", "t", "z", data=frame, weights="m", groups="g")
    by_array = IVBilevel(rng=0).fit(
        "y", "t", "z", data=frame, weights=frame["m"], groups=frame["g"].to_numpy()
    )
    assert by_array.coef_ == by_name.coef_
    assert by_array.stderr_ == by_name.stderr_


@pytest.mark.parametrize("kind", ["repeated", "more than rows"])
def test_instruments_without_a_linear_stage_should_leave_its_tables_out(kind):
    rows = slice(None) if kind == "repeated" else slice(0, 60)
    z = np.column_stack([X, X[:, 0]])
    if kind == "more than rows":
        z = np.random.default_rng(1).normal(size=(60, 80)) + X[rows, :1]
    iv = IVBilevel(rng=0).fit(Y[rows], T[rows], z[rows])
    assert "2SLS" not in iv.summary()
    assert any("repeat each other, or outnumber" in text for text in iv.warnings_)
    assert iv.to_dict()["anderson_rubin"] is None
    assert iv.over_identification_ is None
    for call in (iv.anderson_rubin_set, lambda: iv.anderson_rubin([2.0]), lambda: iv.first_stage_):
        with pytest.raises(InputError, match="need a linear first stage"):
            call()


def test_few_clusters_should_be_warned_of():
    for clusters, warned in ((12, True), (60, False)):
        model = OBiGrad(AFFINE, learner=RIDGE, diagnose=False).fit(X, Z, groups=np.arange(N) % clusters)
        estimate = model.hypergradient([1.0])
        assert estimate.diagnostics.clusters == clusters
        assert any(f"rests on {clusters} clusters" in text for text in estimate.warnings) is warned
    assert fitted().hypergradient([1.0]).diagnostics.clusters == 0


def test_a_tuned_penalty_should_say_that_it_met_rows_without_curvature():
    """Rows that only judge (inner weight 0) have no curvature, and count as rows of the tuning."""
    half = (np.arange(N) % 2).astype(float)
    inner = Squared("Y", weight=ExponentialWeight("u", base="half"))
    rows = {**Z, "half": half, "u": 0.1 * X[:, 0]}
    for learner, flat in ((SieveRidge(), N // 2), (RIDGE, 0)):
        estimate = fitted(BilevelProblem(inner, Squared("Y")), rows, learner=learner).hypergradient([0.0])
        assert estimate.diagnostics.flat == flat
        assert any("rows have no curvature" in text for text in estimate.warnings) is (flat > 0)


@pytest.mark.parametrize("general", [False, True], ids=["halves", "nested"])
def test_inner_splits_should_not_follow_the_order_of_the_rows(general):
    """Rows sorted in pairs (a row and its twin, next to each other): cut by turns, halves would be copies."""
    twice = np.repeat(np.arange(N), 2)
    rows = {name: column[twice] for name, column in Z.items()}
    if general:
        model = OBiGrad(GENERAL, learner=RIDGE, nested=True, folds=2, rng=3, diagnose=False)
        one = model.fit(X, Z).hypergradient([1.0]).value
        other = OBiGrad(GENERAL, learner=RIDGE, nested=True, folds=2, rng=4, diagnose=False)
        again = OBiGrad(GENERAL, learner=RIDGE, nested=True, folds=2, rng=3, diagnose=False)
        assert one == again.fit(X, Z).hypergradient([1.0]).value
        assert one != other.fit(X, Z).hypergradient([1.0]).value
        return
    codes = np.arange(2 * N) // 2 % 4
    paired = OBiGrad(AFFINE, learner=RIDGE, folds=codes).fit(X[twice], rows).hypergradient([1.0])
    # By turns both halves would hold one twin of every pair: equal fits, and no difference to see.
    assert paired.diagnostics.halves_bias[0] > 1e-4


@pytest.mark.parametrize("name", ["d_v", "d2_v"])
def test_a_derivative_that_no_loss_may_leave_out_should_be_asked_for(name):
    derivatives = {"d_v": lambda w, v, z: v, "d2_v": lambda w, v, z: np.ones((len(v), 1, 1))}
    loss = CustomLoss(lambda w, v, z: v[:, 0] ** 2 / 2, **(derivatives | {name: None}))
    with pytest.raises(InputError, match=f"^{name} of the loss has a fixed layout.* got None"):
        check_loss(loss, np.ones(1), np.linspace(-1, 1, 5)[:, None], {"X": np.zeros((5, 1))})

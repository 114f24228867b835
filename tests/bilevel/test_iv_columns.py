import numpy as np
import pandas as pd
import polars as pl
import pytest

from metier.bilevel.crossfit import draw_folds
from metier.bilevel.estimators.columns import check_together, role_columns
from metier.bilevel.estimators.features import make_features
from metier.bilevel.estimators.moments import least_squares, partial_out
from metier.core import InputError

FRAMES = {"pandas": pd.DataFrame, "polars": pl.DataFrame}


@pytest.mark.parametrize("kind", FRAMES)
def test_names_should_come_from_columns(kind):
    frame = FRAMES[kind]({"hours": [1.0, 2.0, 3.0], "sex": ["f", "m", "f"], "old": [True, False, True]})
    assert role_columns("outcome", frame["hours"], prefix="y").names == ("hours",)
    controls = role_columns("controls", ["sex", "old"], data=frame, prefix="x", categories=True)
    assert controls.names == ("sex=m", "old")
    assert controls.values.tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]


def test_an_unknown_column_should_name_its_neighbors():
    frame = pl.DataFrame({"hours": [1.0], "samesex": [1]})
    with pytest.raises(InputError, match=r"got 'samsex'. For 'samsex' did you mean 'samesex'\?"):
        role_columns("instruments", "samsex", data=frame, prefix="z")


def test_text_as_outcome_should_be_refused():
    with pytest.raises(InputError, match="outcome column 'sex' must hold numbers"):
        role_columns("outcome", pl.DataFrame({"sex": ["f"]}), prefix="y")


def test_an_identifier_should_not_become_fifty_indicators():
    frame = pl.DataFrame({"id": [f"p{k}" for k in range(60)]})
    with pytest.raises(InputError, match="read as a category: expected 2 to 50 levels, got 60"):
        role_columns("controls", frame, prefix="x", categories=True)


@pytest.mark.parametrize("kind", FRAMES)
def test_missing_values_should_be_counted_by_column(kind):
    frame = FRAMES[kind]({"y": [1.0, None, 3.0, None], "t": [1, 2, None, 3], "sex": ["f", "m", None, "f"]})
    parts = [
        role_columns("outcome", "y", data=frame, prefix="y"),
        role_columns("treatment", "t", data=frame, prefix="t"),
        role_columns("controls", "sex", data=frame, prefix="x", categories=True),
    ]
    with pytest.raises(InputError, match=r"got 2 in 'y', 1 in 't', 1 in 'sex=m' \(3 of 4 rows\)"):
        check_together(parts)


def test_unequal_lengths_and_constants_should_be_named():
    y, z = np.arange(3.0), np.ones((3, 2)) * [[1.0], [2.0], [3.0]]
    with pytest.raises(InputError, match="outcome 3, instruments 2"):
        check_together(
            [role_columns("outcome", y, prefix="y"), role_columns("instruments", z[:2], prefix="z")]
        )
    z[:, 1] = 7.0
    with pytest.raises(InputError, match=r"instruments must vary: .* got 'z2' constant"):
        check_together([role_columns("instruments", z, prefix="z")])


def test_shapes_that_are_no_table_should_be_refused():
    with pytest.raises(InputError, match="table of rows x columns"):
        role_columns("treatment", np.zeros((2, 2, 2)), prefix="t")
    with pytest.raises(InputError, match="the treatment must be numbers"):
        role_columns("treatment", ["a", "b"], prefix="t")


@pytest.mark.parametrize(("kind", "d"), [("linear", 2), ("spline", 12), ("fourier", 12)])
def test_named_features_should_have_a_name_each(kind, d):
    t = np.random.default_rng(0).normal(size=(50, 2))
    features = make_features(kind)
    names = features.fit(t, ("a", "b"))
    assert features.transform(t).shape == (50, len(names)) == (50, d)
    assert len(set(names)) == d
    assert names[0].startswith("a")
    assert np.linalg.matrix_rank(np.column_stack([np.ones(50), features.transform(t)])) == d + 1


def test_own_features_should_be_taken_as_they_come():
    from sklearn.preprocessing import PolynomialFeatures

    t = np.random.default_rng(0).normal(size=(50, 1))
    square = make_features(lambda x: np.column_stack([x, x**2]))
    assert square.fit(t, ("a",)) == ("feature1", "feature2")
    poly = make_features(PolynomialFeatures(2, include_bias=False))
    assert poly.fit(t, ("a",)) == ("a", "a^2")
    with pytest.raises(InputError, match="Did you mean 'spline'"):
        make_features("splines")
    with pytest.raises(InputError, match="features map treatments"):
        make_features(lambda x: x[:3]).fit(t, ("a",))


def test_a_binary_treatment_has_no_spline():
    with pytest.raises(InputError, match="got 2 in 'treated'"):
        make_features("spline").fit(np.array([[0.0], [1.0]] * 10), ("treated",))


def test_residuals_should_come_from_models_that_never_saw_the_row():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(60, 3))
    folds = draw_folds(60, 4, rng)
    found = partial_out(y, x, weights=np.ones(60), folds=folds, fit=least_squares).values
    for i in (0, 17, 59):
        seen = folds != folds[i]
        design = np.column_stack([np.ones(seen.sum()), x[seen]])
        coef = np.linalg.lstsq(design, y[seen], rcond=None)[0]
        np.testing.assert_allclose(found[i], y[i] - np.r_[1.0, x[i]] @ coef, atol=1e-12)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"z": [1.0, 2.0, 3.0], "w": [1.0, 2.0]}, "got 3 in 'z', 2 in 'w'"),
        ({"z": [[1.0, 2.0], [3.0, 4.0]]}, r"got an array of shape \(2, 2\)"),
        ({"z": 3.0}, r"got an array of shape \(\)"),
        ({"z": [[1.0], [2.0, 3.0]]}, "got values of unequal length"),
        ({"z": ["a", "b"]}, "must hold numbers"),
    ],
)
def test_a_mapping_that_is_no_table_should_be_refused_by_column(columns, message):
    with pytest.raises(InputError, match=message):
        role_columns("instruments", list(columns), data=columns, prefix="z")


def test_a_mapping_should_read_numbers_in_object_arrays_and_any_key():
    found = role_columns("instruments", [1], data={1: np.array([1, 2.5, None], dtype=object)}, prefix="z")
    assert found.names == ("1",)
    np.testing.assert_array_equal(found.values[:, 0], [1.0, 2.5, np.nan])

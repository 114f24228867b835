"""Exponents: the table, invariances, proofs of infinity, precision, and what cannot be certified."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from metier.core import InputError
from metier.multi_index import AtLeast, activation_names, exponents, nse_table, step_activation
from metier.multi_index.profile import strong_recovery_bounds

INF = math.inf

# name: kappa_1..4, beta*, B*, c; the note's table, and the rest by hand from its rules.
TABLE = {
    "linear": ((1, 2, 3, 4), 2, 1, 2),
    "square": ((INF, 1, INF, 2), 1, 1, 2),
    "He2": ((INF, 1, INF, 2), 1, 1, 2),
    "abs": ((INF, 1, INF, 1), 1, 1, math.sqrt(2 / math.pi)),
    "quartic": ((INF, 1, INF, 1), 1, 1, 12),
    "He3": ((3, 2, 1, 2), 2, 2, 36),
    "He4": ((INF, 2, INF, 1), 2, 2, 192),
    "cube": ((1, 2, 1, 2), 2, 1, 90),
    "relu": ((1, 1, 2, 1), 1, 1, 0.39894228040143),
    "gelu": ((1, 1, 2, 1), 1, 1, 0.42314219),
    "silu": ((1, 1, 2, 1), 1, 1, 0.35084544),
    "tanh": ((1, 2, 1, 2), 2, 1, 0.36359538),
    "erf": ((1, 2, 1, 2), 2, 1, 0.36755260),
    "cos": ((INF, 1, INF, 1), 1, 1, -0.60653066),
    "gaussian": ((INF, 1, INF, 1), 1, 1, -0.35355339),
    "He3+He4": ((2, 2, 1, 1), 2, Fraction(3, 2), 228),
    "sign": ((1, INF, 1, INF), INF, 1, None),
    "z2exp": ((INF, INF, INF, 1), INF, INF, None),
}


@pytest.mark.parametrize("name", TABLE)
def test_table_should_be_reproduced_and_certified(name):
    kappa, nse, strong, constant = TABLE[name]
    found = exponents(name)
    assert found.kappa == kappa
    assert found.noise_sensitivity == nse
    assert found.strong_recovery == strong
    assert found.certificate.status == "certified"
    if constant is None:
        assert found.constant is None
    else:
        assert found.constant.mid == pytest.approx(constant, rel=2e-8)
        assert found.constant.rad <= 1e-7 * abs(constant)
        assert found.constant.state == "certified nonzero"


def quad(function, cuts=(0,)):
    """E under N(0, 1) by mpmath's own quadrature."""
    with mpmath.workdps(15):
        points = [-mpmath.inf, *cuts, mpmath.inf]
        return float(mpmath.quad(lambda z: function(z) * mpmath.npdf(z), points))


ORACLES = {
    "leaky_relu": (lambda z: z if z > 0 else z / 10, (0,)),
    "softplus": (lambda z: mpmath.log1p(mpmath.exp(z)), (0,)),
    "sigmoid": (lambda z: 1 / (1 + mpmath.exp(-z)), (0,)),
    "rational": (lambda z: z * z / (1 + z * z), (-1, 0, 1)),
    "door": (lambda z: 1 if abs(z) > 1 else 0, (-1, 1)),
    "cos2": (lambda z: mpmath.cos(2 * z), (0,)),
    "sin": (mpmath.sin, (0,)),
    "gelu": (lambda z: z * mpmath.ncdf(z), (0,)),
    "He5": (lambda z: z**5 - 10 * z**3 + 15 * z, (0,)),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("leaky_relu", "gelu") else pytest.mark.slow)
        for name in ORACLES
    ],
)
def test_coefficients_should_equal_another_quadrature(name):
    function, cuts = ORACLES[name]
    hermite = {
        1: lambda z: z,
        2: lambda z: z * z - 1,
        3: lambda z: z**3 - 3 * z,
        4: lambda z: z**4 - 6 * z * z + 3,
    }
    found = exponents(name)
    for j in hermite:
        for k in (1, 2):
            c = found.coefficient(k, j)
            expected = quad(lambda z, k=k, j=j: function(z) ** k * hermite[j](z), cuts)
            assert c.mid == pytest.approx(expected, rel=1e-7, abs=1e-13), (k, j)
            assert (c.state == "certified zero") == (abs(expected) < 1e-13), (k, j)


@settings(deadline=None)
@given(
    st.sampled_from(["tanh", "He4", "abs", "relu", "cos", "door", "He3"]),
    st.sampled_from([-3.7, -1.0, 0.2, 1.5, 11.0]),
    st.sampled_from([-2.5, 0.0, 0.75]),
)
def test_affine_maps_should_keep_the_exponent_and_scale_c(name, a, b):
    from metier.multi_index import as_activation

    base = exponents(name)
    moved = exponents(as_activation(name).affine(a, b))
    assert moved.noise_sensitivity == base.noise_sensitivity
    assert moved.constant.mid == pytest.approx(a**base.noise_sensitivity * base.constant.mid, rel=1e-9)
    assert moved.certificate.status == "certified"


@pytest.mark.parametrize("name", ["sign", "z2exp", "3 - 2*sign(x)", "5*x**2*exp(-x**2) - 7"])
def test_infinite_exponents_should_be_proved(name):
    found = exponents(name)
    assert found.noise_sensitivity == INF
    assert found.certificate.status == "certified"
    assert found.constant is None
    assert found.summary().count("inf") >= 1


@pytest.mark.parametrize(("function", "kinks"), [(np.sign, (0.0,)), (lambda z: z * z * np.exp(-z * z), ())])
def test_without_a_proof_only_a_bound_should_be_said(function, kinks):
    found = exponents(function, kinks=kinks)
    assert found.noise_sensitivity == AtLeast(9)
    assert str(found.noise_sensitivity) == ">= 9"
    assert found.certificate.status == "numerical"
    assert exponents(function, kinks=kinks, max_power=4).noise_sensitivity == AtLeast(5)


@pytest.mark.parametrize("name", activation_names())
def test_certified_results_should_agree_at_106_and_212_bits(name):
    low, high = exponents(name, bits=106), exponents(name, bits=212)
    for exponent in ("information", "generative", "leap", "noise_sensitivity", "strong_recovery", "kappa"):
        assert getattr(low, exponent) == getattr(high, exponent)
    for k in (1, 2, 3):
        for j in (1, 2, 3, 4):
            a, b = low.coefficient(k, j), high.coefficient(k, j)
            assert a.state == b.state != "undecided"
            assert abs(a.mid - b.mid) <= a.rad + b.rad
            assert b.rad <= a.rad * (1 + 1e-12) + 1e-300


def second_power_form(degree):
    """E[f^2 He_2] as a matrix over f = sum a_i h_i, i = 4, 6, ..., degree, by polarization."""
    units = [f"{1 / math.sqrt(math.factorial(i))!r}*He{i}" for i in range(4, degree + 1, 2)]
    form = np.diag([exponents(unit).coefficient(2, 2).mid for unit in units])
    for a, unit in enumerate(units):
        for b, other in enumerate(units[:a]):
            both = exponents(f"{unit} + {other}").coefficient(2, 2).mid
            form[a, b] = form[b, a] = (both - form[a, a] - form[b, b]) / 2
    return form


def test_even_polynomials_below_degree_20_should_have_exponent_2_at_most():
    form = second_power_form(20)
    expected = np.diag([2.0 * i for i in range(4, 21, 2)])
    for a, i in enumerate(range(4, 19, 2)):
        expected[a, a + 1] = expected[a + 1, a] = math.sqrt((i + 1) * (i + 2))
    np.testing.assert_allclose(form, expected, rtol=1e-9, atol=1e-9)
    smallest = [np.linalg.eigvalsh(form[:n, :n])[0] for n in range(1, 10)]
    assert smallest[0] == pytest.approx(8.0, abs=1e-10)
    assert all(value > 0 for value in smallest[:-1])
    assert smallest[-1] < 0


def test_strong_recovery_should_equal_the_grid():
    draw = random.Random(5)
    s = np.linspace(0, 12, 24_001)
    for _ in range(60):
        kappa = {j: draw.randint(1, 7) for j in range(1, 65)}
        terms = np.array([kappa[j] + s * (j - 2) for j in range(1, 65)])
        grid = float(terms.min(axis=0).max())
        low, high = strong_recovery_bounds(lambda j, kappa=kappa: (kappa[j], kappa[j]))
        assert low == high == pytest.approx(grid, abs=2e-3)


def test_strong_recovery_values():
    assert exponents("He3").strong_recovery == 2
    assert exponents("He3+He4").strong_recovery == Fraction(3, 2)
    assert exponents("tanh").strong_recovery == 1
    assert exponents("He4").strong_recovery == exponents("He4").noise_sensitivity
    assert strong_recovery_bounds(lambda j: (INF, INF) if j == 1 else (4, 4)) == (4, 4)


@pytest.mark.parametrize(
    ("name", "information", "generative"),
    [("He3", 3, 1), ("He4", 4, 2), ("sign", 1, 1), ("z2exp", 4, 4), ("cube", 1, 1), ("abs", 2, 2)],
)
def test_information_and_generative_exponents(name, information, generative):
    found = exponents(name)
    assert (found.information, found.leap) == (information, information)
    assert found.generative == generative
    assert found.generative_bounds == (generative, generative)
    assert any("generative" in statement for statement in found.certificate.statements)


def test_generative_lower_bound_should_need_a_proof():
    # All powers of z exp(-z^2/2) have no second degree, but its first is not 0.
    found = exponents("x*exp(-x**2/2)")
    assert (found.noise_sensitivity, found.generative) == (INF, 1)
    numerical = exponents(lambda z: z * z * np.exp(-z * z), parity="even")
    assert numerical.generative == AtLeast(2)
    assert numerical.generative_bounds == (2, 4)


def test_undecided_should_be_said_and_named():
    found = exponents("tanh(x)**2 + cosh(x)**(-2)")  # is 1, which no rule here proves
    assert found.noise_sensitivity == AtLeast(1)
    assert found.certificate.status == "undecided"
    c = found.coefficient(1, 2)
    assert c.state == "undecided"
    assert c.bits == 424
    assert c.rad < 1e-30
    assert "not proved to be 0" in c.reason


@pytest.mark.parametrize("text", ["sign(cos(x/10))", "x + heaviside(exp(x) - 1e9)", "heaviside(cos(x/10))"])
def test_branch_points_beyond_the_searched_range_should_leave_nothing_exact(text):
    # They move c_{1,2} by 1e-49 or less: it is not 0, and no finite precision inside |z| <= 14 sees it.
    found = exponents(text)
    c = found.coefficient(1, 2)
    assert c.state == "undecided"
    assert 0 < abs(c.mid) + c.rad < 1e-38
    assert found.noise_sensitivity == AtLeast(1)
    assert found.certificate.status == "undecided"


def test_roots_that_agree_in_floats_should_be_refused():
    with pytest.raises(InputError, match="roots too close to tell apart near 2"):
        exponents("sign((x - 2)**2 - 2e-36)")


def test_growth_should_take_exponentials_beyond_floats():
    assert exponents("1/(1 + exp(8*x**2))").certificate.status == "certified"


def test_strong_recovery_bounds_should_allow_for_degrees_not_looked_at():
    kappa = dict.fromkeys(range(1, 12), (9.0, INF))
    low, high = strong_recovery_bounds(kappa.__getitem__)
    exact = strong_recovery_bounds({**dict.fromkeys(range(1, 65), (9.0, 9.0)), 12: (1.0, 1.0)}.__getitem__)
    assert low <= exact[0] < 9 < high


def test_exact_cancellation_should_be_proved():
    found = exponents("sin(x)**2 + cos(x)**2")
    assert found.noise_sensitivity == INF or found.coefficient(1, 2).state == "certified zero"
    assert found.coefficient(1, 2).state == "certified zero"
    constant = exponents("3")
    assert constant.information == constant.noise_sensitivity == constant.generative == INF


def test_numerical_states_should_be_labelled():
    found = exponents("tanh", certify=False)
    assert found.certificate.status == "numerical"
    assert found.noise_sensitivity == 2
    c = found.coefficient(2, 2)
    assert c.state == "numerical"
    assert c.mid == pytest.approx(0.36359538, abs=1e-8)
    callable_ = exponents(np.tanh, parity="odd")
    assert callable_.kappa == (1, 2, 1, 2)
    assert callable_.coefficient(1, 2).state == "numerical"


def test_polynomial_expression_should_equal_its_name():
    a, b = exponents("x**4 - 6*x**2 + 3"), exponents("He4")
    assert a.kappa == b.kappa
    assert a.coefficient(2, 2).mid == 192.0
    assert a.coefficient(2, 2).rad == 0.0


@pytest.mark.parametrize("order", range(1, 10))
def test_step_activation_should_have_its_exponent_by_integers(order):
    found = exponents(step_activation(noise_sensitivity=order))
    assert found.noise_sensitivity == order
    assert found.generative == 2
    assert found.certificate.status == "certified"
    lower = [found.coefficient(k, 2) for k in range(1, order)]
    assert all(c.state == "certified zero" for c in lower)
    levels = found.activation.levels
    m = len(levels.inside)
    density = math.exp(-0.5) / math.sqrt(2 * math.pi)
    difference = sum(b**order for b in levels.outside) - sum(a**order for a in levels.inside)
    assert found.constant.mid == pytest.approx(2 * density / m * difference, rel=1e-12)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_step_activation_should_agree_with_its_function(order):
    made = step_activation(order)
    nodes = np.sort(np.concatenate([np.linspace(-9, 9, 400_001), made.kinks]))
    low, high = nodes[:-1], nodes[1:]
    values = made(0.5 * (low + high))

    def antiderivative(z):  # of (z^2 - 1) phi
        return -z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    for k in range(1, order + 1):
        by_cells = float(np.sum(values**k * (antiderivative(high) - antiderivative(low))))
        assert by_cells == pytest.approx(exponents(made).coefficient(k, 2).mid, abs=1e-9)


def test_first_step_activation_should_be_the_known_one():
    levels = step_activation(3).levels
    assert {tuple(map(int, levels.inside)), tuple(map(int, levels.outside))} == {(1, 2, 6), (0, 4, 5)}
    assert abs(exponents(step_activation(3)).constant.mid) == pytest.approx(5.807, abs=1e-3)
    with pytest.raises(InputError, match="at most 12"):
        step_activation(13)
    with pytest.raises(InputError, match="noise_sensitivity is a whole number"):
        step_activation(0)


def test_table_should_hold_no_undecided_row():
    rows = nse_table()
    assert [row.name for row in rows] == list(activation_names())
    assert {row.status for row in rows} == {"certified"}
    normalized = {row.name: row.constant for row in nse_table(normalize=True)}
    assert normalized["He4"] == pytest.approx(8.0, rel=1e-12)


def test_onset_should_be_where_the_law_starts():
    from metier.multi_index.overlap import weak_recovery_values

    for name in ("abs", "He4"):
        found = exponents(name, normalize=True)
        start = found.onset_snr
        law = math.factorial(found.noise_sensitivity) / found.constant.mid**2
        grid = np.array([start * 1.05, start, start / 3, start / 100])
        values, _ = weak_recovery_values(found.activation, grid)
        off = np.abs(values * grid**found.noise_sensitivity / law - 1)
        assert off[0] > 0.1
        assert (off[1:] <= 0.1 + 1e-4).all()
    assert math.isnan(exponents("tanh").onset_snr)
    assert math.isnan(exponents("sign").onset_snr)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"max_power": 0}, "max_power is a whole number"),
        ({"bits": 10}, "bits is a whole number"),
    ],
)
def test_bad_settings_should_be_refused(keywords, message):
    with pytest.raises(InputError, match=message):
        exponents("tanh", **keywords)


def test_powers_that_are_not_integrable_should_be_said():
    found = exponents("exp(x**2/5)")
    assert found.noise_sensitivity == 1
    with pytest.raises(InputError, match="its power 3"):
        found.coefficient(3, 2)


def test_results_should_be_plain_values():
    import json

    for name in ("He3+He4", "sign", "tanh"):
        document = exponents(name).to_dict()
        assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert exponents("He3+He4").to_dict()["strong_recovery"] == "3/2"
    assert exponents("sign").to_dict()["noise_sensitivity"] == "inf"


def test_powers_of_callables_that_are_not_integrable_should_be_said():
    e = exponents(lambda z: np.exp(0.2 * z * z))
    assert e.coefficient(2, 2).mid > 0
    with pytest.raises(InputError, match="integrable power"):
        e.coefficient(3, 2)


def test_numbers_beyond_floats_should_be_refused():
    with pytest.raises(InputError, match="fit floats"):
        exponents("x*" + "9" * 400)

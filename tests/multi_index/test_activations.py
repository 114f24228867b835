"""Activations: read safely, evaluated right, refused with a reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import special

from metier import multi_index
from metier.core import InputError
from metier.multi_index import Activation, activation_names, as_activation

Z = np.linspace(-6.0, 6.0, 241) + 0.0031

BY_HAND = {
    "linear": lambda z: z,
    "square": lambda z: z * z,
    "He2": lambda z: z * z - 1,
    "abs": np.abs,
    "He3": lambda z: z**3 - 3 * z,
    "He4": lambda z: z**4 - 6 * z**2 + 3,
    "He5": lambda z: z**5 - 10 * z**3 + 15 * z,
    "He6": lambda z: z**6 - 15 * z**4 + 45 * z**2 - 15,
    "cube": lambda z: z**3,
    "quartic": lambda z: z**4,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.1 * z),
    "gelu": lambda z: z * special.ndtr(z),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "tanh": np.tanh,
    "erf": lambda z: special.erf(z / math.sqrt(2)),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "sin": np.sin,
    "cos": np.cos,
    "cos2": lambda z: np.cos(2 * z),
    "gaussian": lambda z: np.exp(-z * z / 2),
    "rational": lambda z: z * z / (1 + z * z),
    "door": lambda z: 1.0 * (np.abs(z) > 1),
    "He3+He4": lambda z: z**4 + z**3 - 6 * z**2 - 3 * z + 3,
    "sign": np.sign,
    "z2exp": lambda z: z * z * np.exp(-z * z),
}


def test_every_registered_activation_should_be_known_here():
    assert set(BY_HAND) == set(activation_names())
    assert len(activation_names()) >= 27


@pytest.mark.parametrize("name", activation_names())
def test_named_activation_should_equal_its_definition(name):
    found = as_activation(name)
    np.testing.assert_allclose(found(Z), BY_HAND[name](Z), rtol=1e-12, atol=1e-12)
    even, odd = found(Z) - found(-Z), found(Z) + found(-Z)
    assert (found.parity == "even") == bool(np.allclose(even, 0, atol=1e-12))
    assert (found.parity == "odd") == bool(np.allclose(odd, 0, atol=1e-12))


@pytest.fixture(scope="module")
def fine_sum():
    z = (np.arange(240_000) + 0.5) * 1e-4 - 12  # midpoints: every cut of the registry is a border
    return z, np.exp(-z * z / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("name", activation_names())
def test_moments_should_equal_a_fine_sum(name, fine_sum):
    z, weights = fine_sum
    values = BY_HAND[name](z)
    found = as_activation(name)
    assert found.mean == pytest.approx(float(weights @ values), abs=2e-6)
    assert found.second_moment == pytest.approx(float(weights @ values**2), rel=2e-5)
    assert found.moment(1, 2) == pytest.approx(float(weights @ (values * (z * z - 1))), abs=2e-6)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("2*x**3 - x/4 + 1", lambda z: 2 * z**3 - z / 4 + 1),
        ("x^2 - 1", lambda z: z * z - 1),
        ("He4", lambda z: z**4 - 6 * z**2 + 3),
        ("He2(2*x)", lambda z: 4 * z * z - 1),
        ("max(x, 0.3) - min(x, -1)", lambda z: np.maximum(z, 0.3) - np.minimum(z, -1)),
        ("abs(abs(x) - 1)", lambda z: np.abs(np.abs(z) - 1)),
        ("(x > -0.5)*(x <= 2)", lambda z: 1.0 * ((z > -0.5) & (z <= 2))),
        ("exp(-z**2)*cos(pi*z)", lambda z: np.exp(-z * z) * np.cos(np.pi * z)),
        ("sqrt(1 + x**2)", lambda z: np.sqrt(1 + z * z)),
        ("2**x / (1 + 2**x)", lambda z: 2**z / (1 + 2**z)),
        ("atan(x) + sinh(x/4) + cosh(x/4)", lambda z: np.arctan(z) + np.exp(z / 4)),
        ("log(1 + abs(x))", lambda z: np.log1p(np.abs(z))),
        ("heaviside(x - 1) + 0.5*swish(x)", lambda z: (z > 1) + 0.5 * z / (1 + np.exp(-z))),
    ],
)
def test_expression_should_equal_numpy(text, reference):
    np.testing.assert_allclose(as_activation(text)(Z), reference(Z), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("text", "kinks"),
    [
        ("abs(x**2 - 2)", (-math.sqrt(2), math.sqrt(2))),
        ("abs(abs(x) - 1)", (-1.0, 0.0, 1.0)),
        ("relu(tanh(x) - 0.5)", (math.atanh(0.5),)),
        ("sign(x**3 - 3*x)", (-math.sqrt(3), 0.0, math.sqrt(3))),
        ("abs(exp(x))", ()),
        ("relu(x) - relu(x - 1)", (0.0, 1.0)),
        ("abs(x)*abs(x)", ()),  # is x^2
    ],
)
def test_kinks_should_be_found(text, kinks):
    assert as_activation(text).kinks == pytest.approx(kinks, abs=1e-14)


@settings(deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=7), st.floats(-3, 3))
def test_polynomial_text_should_evaluate_like_a_polynomial(coefficients, at):
    text = " + ".join(f"({a})*x**{i}" for i, a in enumerate(coefficients))
    expected = sum(a * at**i for i, a in enumerate(coefficients))
    assert float(as_activation(text)(at)) == pytest.approx(expected, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty text"),
        ("x +", "cannot be read"),
        ("__import__('os').system('true')", "Call"),
        ("().__class__", "Attribute"),
        ("x.real", "Attribute"),
        ("[x for x in (1,)]", "ListComp"),
        ("lambda x: x", "Lambda"),
        ("open('f')", r"the name 'open'|Constant"),
        ("tanhh(x)", "Did you mean 'tanh'"),
        ("tanh", None),
        ("relu + 1", r"Write relu\(x\)"),
        ("y + 1", "the name 'y'"),
        ("x**x", "a rational number as power"),
        ("x**1000", "powers of at most 64"),
        ("He99", "a degree of at most 64"),
        ("1 < x < 2", "Compare"),
        ("x == 1", "one of < <= > >="),
        ("1/0", "a divisor other than 0"),
        ("tanh(x, 2)", "1 argument"),
        ("x if x > 0 else 0", "IfExp"),
        ("'x'", "Constant"),
        ("x" + "+x" * 1500, "2000"),
    ],
)
def test_text_should_be_refused_with_a_reason(text, message):
    if message is None:
        assert as_activation(text).name == text
        return
    with pytest.raises(InputError, match=message):
        as_activation(text)


NOISE = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ("exp(x**2)", "finite variance"),
        ("exp(x**2/4)", "finite variance"),
        ("1/x", "singular near z = 0"),
        ("log(x)", "finite real values, got nan"),
        ("sqrt(x)", "finite real values, got nan"),
        (lambda z: 1.0 / np.zeros_like(z), "got inf"),
        (lambda z: np.exp(z**2), "finite variance"),
        (lambda z: 1.0, "vectorized"),
        (lambda z: z + 1j, "vectorized"),
        (lambda z: z + NOISE.normal(size=z.shape), "expected the same values each time"),
        (3, "a name, an expression or a callable"),
        (lambda z: np.abs(z - 0.3), r"kink or a jump near z = 0\.3\. Pass kinks=\(0\.3,\)"),
        (lambda z: 1.0 * (z > 0.123), r"kink or a jump near z = 0\.123"),
    ],
)
def test_bad_function_should_be_refused_with_a_reason(activation, message):
    with pytest.raises(InputError, match=message):
        as_activation(activation)


def test_declared_kinks_and_parity_should_be_used_and_checked():
    found = as_activation(lambda z: np.abs(z - 0.3), kinks=(0.3,))
    assert found.kinks == (0.3,)
    assert found.variance == pytest.approx(as_activation("abs(x - 0.3)").variance, rel=1e-10)
    with pytest.raises(InputError, match="declared even is even"):
        as_activation(np.tanh, parity="even")
    with pytest.raises(InputError, match="'even', 'odd' or None"):
        as_activation(np.tanh, parity="both")
    with pytest.raises(InputError, match="kinks are numbers"):
        as_activation(np.abs, kinks=(math.inf,))
    with pytest.raises(InputError, match="declared for Python callables only"):
        as_activation("abs", kinks=(0.0,))


@pytest.mark.parametrize(
    "function",
    [lambda z: [float(v) ** 2 for v in np.ravel(z)], lambda z: [v**2 for v in z]],
    ids=["flattens", "iterates"],
)
def test_callables_that_return_lists_should_be_asked_for_vectors(function):
    square = as_activation(function)
    np.testing.assert_array_equal(square(np.arange(6.0).reshape(2, 3)), np.arange(6.0).reshape(2, 3) ** 2)
    assert float(square(3.0)) == 9.0
    assert square.variance == pytest.approx(2.0)


def test_a_bare_kink_should_be_refused_with_how_to_write_it():
    with pytest.raises(InputError, match=r"kinks are numbers.*got 0\.3\. Pass kinks=\(0\.0,\)"):
        as_activation(lambda z: np.abs(z - 0.3), kinks=0.3)


def test_parity_should_be_checked_far_out_too():
    def almost_even(z):
        return z**2 + np.maximum(z - 3.2, 0)

    with pytest.raises(InputError, match="declared even is even"):
        as_activation(almost_even, kinks=(3.2,), parity="even")


def test_steep_but_smooth_callable_should_pass():
    found = as_activation(lambda z: np.tanh(50 * z))
    assert found.second_moment == pytest.approx(as_activation("tanh(50*x)").second_moment, rel=1e-9)


@settings(deadline=None)
@given(st.floats(0.1, 9), st.floats(-3, 3), st.sampled_from(["tanh", "He4", "abs", "door"]))
def test_affine_should_transform_values_and_moments(scale, shift, name):
    base = as_activation(name)
    moved = base.affine(-scale, shift)
    np.testing.assert_allclose(moved(Z), -scale * base(Z) + shift, rtol=1e-12, atol=1e-12)
    assert moved.variance == pytest.approx(scale**2 * base.variance, rel=1e-9)
    assert base.normalized().variance == pytest.approx(1.0, rel=1e-10)


def test_constant_and_zero_scale_should_be_refused():
    with pytest.raises(InputError, match="which is constant"):
        as_activation("x - x + 2", normalize=True)
    with pytest.raises(InputError, match="scale=0"):
        as_activation("tanh").affine(0)


def test_linear_part_should_be_removed():
    rest = as_activation("tanh").without_linear_part()
    assert isinstance(rest, Activation)
    assert rest.moment(1, 1) == pytest.approx(0, abs=1e-12)
    assert rest.moment(2, 2) == pytest.approx(0.0703, abs=5e-5)


def test_same_text_should_give_the_same_object():
    assert as_activation("tanh") is as_activation("tanh")
    a = as_activation(as_activation("tanh"))
    assert a is as_activation("tanh")


@pytest.mark.parametrize("ask", [multi_index.exponents, lambda f: multi_index.thresholds(f, snr=1.0)])
def test_what_a_callable_raises_itself_should_be_named_and_chained(ask):
    """Also where only far arguments raise."""

    def far(z):
        if np.abs(z).max() > 20:
            raise KeyError("far")
        return np.tanh(z)

    with pytest.raises(InputError, match="no exception from far, got KeyError: 'far'") as caught:
        ask(far)
    assert isinstance(caught.value.__cause__, KeyError)


def test_narrow_feature_of_a_callable_should_not_be_called_a_kink():
    """The first panels step over it: what they sum up to is no scale for its rounding."""
    bump = as_activation(lambda z: np.exp(-(((z - 0.5) / 0.01) ** 2)))
    exact = 0.01 * np.sqrt(np.pi / (1 + 0.5e-4)) * np.exp(-0.125 / (1 + 0.5e-4)) / np.sqrt(2 * np.pi)
    assert bump.mean == pytest.approx(exact, rel=1e-9)
    assert 0 < bump.rule.narrow.size < 30

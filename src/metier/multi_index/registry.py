"""Activations by name, as the expressions they are."""

from __future__ import annotations

REGISTRY: dict[str, str] = {
    "linear": "x",
    "square": "x**2",
    "He2": "x**2 - 1",
    "abs": "abs(x)",
    "He3": "x**3 - 3*x",
    "He4": "x**4 - 6*x**2 + 3",
    "He5": "x**5 - 10*x**3 + 15*x",
    "He6": "x**6 - 15*x**4 + 45*x**2 - 15",
    "cube": "x**3",
    "quartic": "x**4",
    "relu": "relu(x)",
    "leaky_relu": "leaky_relu(x, 0.1)",
    "gelu": "gelu(x)",
    "silu": "silu(x)",
    "softplus": "softplus(x)",
    "tanh": "tanh(x)",
    "erf": "erf(x/sqrt(2))",
    "sigmoid": "sigmoid(x)",
    "sin": "sin(x)",
    "cos": "cos(x)",
    "cos2": "cos(2*x)",
    "gaussian": "exp(-x**2/2)",
    "rational": "x**2/(1 + x**2)",
    "door": "abs(x) > 1",
    "He3+He4": "(x**3 - 3*x) + (x**4 - 6*x**2 + 3)",
    "sign": "sign(x)",
    "z2exp": "x**2*exp(-x**2)",
}
"""Hermite polynomials are the probabilists'; "erf" is erf(z/sqrt 2), "z2exp" is z^2 exp(-z^2)."""


def activation_names() -> tuple[str, ...]:
    """Return the names of the registry, in the order of `nse_table`.

    Example:
        >>> len(activation_names()), activation_names()[:3]
        (27, ('linear', 'square', 'He2'))
    """
    return tuple(REGISTRY)

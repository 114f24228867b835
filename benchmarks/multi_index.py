"""Certified exponents: the table of 27 activations, one call, and the same coefficients by scipy.

Run: python benchmarks/multi_index.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import integrate

from metier.multi_index import activation_names, as_activation, exponents, nse_table
from record import in_turn, ratio, table, timed, write

# What counts as given: reading an expression's text, and the nodes of the float rule.
GIVEN = ("metier.multi_index.expression.reading", "metier.multi_index.activations")
POWERS, DEGREES = (1, 2), (1, 2, 3, 4)


def caches() -> list[Any]:
    """Every function of the loaded family that remembers its answers."""
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("metier.multi_index") and name not in GIVEN
    ]
    held = {id(value): value for module in modules for value in vars(module).values()}
    return [v for v in held.values() if hasattr(v, "cache_clear") and v.__module__ not in GIVEN]


def cold(fn: Callable[[], Any]) -> Callable[[], Any]:
    """Run `fn` with nothing remembered."""

    def run() -> Any:
        for cache in caches():
            cache.cache_clear()
        return fn()

    return run


def by_scipy() -> dict[str, float]:
    """c_{k,j} of every name by adaptive quadrature in floats: no bound, no proof of zero."""
    out = {}
    for name in activation_names():
        sigma = as_activation(name)
        for k in POWERS:
            for j in DEGREES:
                he = np.polynomial.hermite_e.HermiteE.basis(j)

                def integrand(z: float, k: int = k, he: Any = he, sigma: Any = sigma) -> float:
                    return float(sigma(z)) ** k * he(z) * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)

                value, _ = integrate.quad(integrand, -12, 12, points=[0.0, *sigma.kinks], limit=200)
                out[f"{name} {k} {j}"] = value
    return out


def certified() -> dict[str, float]:
    """The same coefficients, certified."""
    out = {}
    for name in activation_names():
        found = exponents(name)
        for k in POWERS:
            for j in DEGREES:
                out[f"{name} {k} {j}"] = found.coefficient(k, j).mid
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    first, _, rows = timed(nse_table)
    times = in_turn(
        {
            "metier": cold(nse_table),
            "metier coefficients": cold(certified),
            "scipy coefficients": by_scipy,
        },
        options.repeats,
    )
    ours, theirs = certified(), by_scipy()
    scale = {key: max(1.0, abs(value)) for key, value in ours.items()}
    difference = max(abs(ours[key] - theirs[key]) / scale[key] for key in ours)
    calls = {
        name: in_turn({"metier": cold(lambda name=name: exponents(name))}, 3)["metier"]["cpu_median"]
        for name in ("tanh", "gelu", "erf", "He6", "x**4 - 6*x**2 + 3", "abs(tanh(x) - 0.3)")
    }
    print(table([("", "wall ms", "CPU ms"), *_lines(times), *_calls(calls)]))
    print(f"first table of the process {1e3 * first:.0f} ms; largest difference from scipy {difference:.1e}")
    result = {
        "n_activations": len(rows),
        "first_table_seconds": first,
        "times": times,
        "ratio": ratio(times, "scipy coefficients", ours="metier coefficients"),
        "call_cpu_seconds": calls,
        "largest_difference_from_scipy": difference,
        "targets": {"table_seconds": 0.5, "call_seconds": 0.05},
    }
    print("written:", write("multi_index-exponents", result, seed=options.seed).name)


def _lines(times: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    return [(n, f"{1e3 * t['wall_median']:.1f}", f"{1e3 * t['cpu_median']:.1f}") for n, t in times.items()]


def _calls(calls: dict[str, float]) -> list[tuple[str, ...]]:
    return [(f"exponents({name!r})", "", f"{1e3 * value:.1f}") for name, value in calls.items()]


if __name__ == "__main__":
    main()

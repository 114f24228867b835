"""The contract of every potential, against the formulas, finite differences and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special as sp
import torch
from hypothesis import given, strategies as st
from scipy.optimize import minimize

from metier import moe
from metier.core.errors import InputError
from metier.moe.balancing.potential_members import resolve_potential

MEMBERS = {name: make() for name, make in moe.POTENTIALS.items()}
VARIANTS = {
    **MEMBERS,
    "power-1.5": moe.Power(r=1.5),
    "tsallis-0.5": moe.Tsallis(a=0.5),
    "tsallis-2": moe.Tsallis(a=2.0),
    "log_cosh-3": moe.LogCosh(sharpness=3.0),
    "pseudo_huber-0.3": moe.PseudoHuber(width=0.3),
    "softplus-4": moe.Softplus(sharpness=4.0),
    "log_sum_exp-1": moe.LogSumExp(sharpness=1.0),
}
TARGET = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.06, 0.04])
EVERY = {**VARIANTS, **{f"{name}-target": phi.with_target(TARGET) for name, phi in MEMBERS.items()}}
E = 8


def loads(seed: int = 0, n: int = 5, spread: float = 0.7) -> torch.Tensor:
    z = np.random.default_rng(seed).normal(size=(n, E)) * spread
    return torch.from_numpy(sp.softmax(z, axis=-1))


def reference(name: str, p: np.ndarray) -> float:
    """Each formula a second time, written with NumPy and scipy, before rescaling."""
    n, d = p.size, p - 1.0 / p.size
    return {
        "shannon": lambda: -sp.entr(p).sum(),
        "kl": lambda: sp.rel_entr(p, np.full(n, 1.0 / n)).sum(),
        "quadratic": lambda: n / 2 * (d @ d),
        "power": lambda: (p**3).sum() / 3,
        "tsallis": lambda: ((p**1.1).sum() - p.sum()) / 0.1,
        "log_barrier": lambda: -np.log(n * p).sum() / n,
        "log_sum_exp": lambda: sp.logsumexp(4 * n * p) / (4 * n),
        "log_cosh": lambda: np.log(np.cosh(n * d)).sum() / n**2,
        "pseudo_huber": lambda: (np.sqrt(1 + (n * d) ** 2) - 1).sum() / n**2,
        "softplus": lambda: np.log1p(np.exp(n * p)).sum() / n,
    }[name]()


@pytest.mark.parametrize("name", MEMBERS)
def test_value_should_be_the_formula_up_to_scale_and_constants(name: str) -> None:
    phi, p = MEMBERS[name], loads().numpy()
    uniform = np.full(E, 1.0 / E)
    raw = np.array([reference(name, row) - reference(name, uniform) for row in p])
    # On the simplex the linear term of the Bregman divergence from uniform vanishes.
    got = phi.value(torch.from_numpy(p)).numpy()
    np.testing.assert_allclose(got, phi.scale(E) * raw, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_fenchel_young_gap_should_vanish_and_inverse_return(name: str) -> None:
    """Must 1: gap and inverse <= 1e-12 in float64 (where no price is saturated)."""
    phi, p = EVERY[name], loads(1, spread=0.3)
    q = phi.gradient(p)
    gap = phi.value(p) + phi.conjugate(q) - (p * q).sum(-1)
    assert gap.abs().max() <= 1e-12
    assert (phi.inverse(q) - p).abs().max() <= 1e-12


@pytest.mark.parametrize("name", EVERY)
def test_conjugate_should_be_above_at_other_loads(name: str) -> None:
    phi, p = EVERY[name], loads(2)
    q = phi.gradient(p)
    other = loads(3)
    gap = phi.value(other) + phi.conjugate(q) - (other * q).sum(-1)
    assert (gap > 1e-6).all()
    assert torch.allclose(gap, phi.bregman(other, p), rtol=1e-9, atol=1e-12)


def test_simplex_members_should_allow_any_constant_in_the_prices() -> None:
    phi, p = moe.KullbackLeibler(target=TARGET), loads(4)
    q = phi.price(p)
    assert (phi.inverse(q + 3.0) - p).abs().max() <= 1e-12
    assert ((phi.conjugate(q + 3.0) - 3.0) - phi.conjugate(q)).abs().max() <= 1e-12


@pytest.mark.parametrize("name", EVERY)
def test_gradient_should_match_central_differences(name: str) -> None:
    """Must 1: 1e-6, log-barrier 1e-3."""
    phi, p, h = EVERY[name], loads(5), 1e-6
    steps = torch.eye(E, dtype=torch.float64) * h
    numeric = (phi.value(p[:, None] + steps) - phi.value(p[:, None] - steps)) / (2 * h)
    tolerance = 1e-3 if "log_barrier" in name else 1e-6
    assert (numeric - phi.gradient(p)).abs().max() <= tolerance


@pytest.mark.parametrize("n_experts", [2, 8, 64])
@pytest.mark.parametrize("name", VARIANTS)
def test_curvature_should_be_the_number_of_experts_and_prices_sum_to_zero(name: str, n_experts: int) -> None:
    """Must 2: curvature E within 1e-4 relative (second differences), price sum 0 within 1e-6."""
    phi, h = VARIANTS[name], 1e-3 / n_experts
    uniform = torch.full((n_experts,), 1.0 / n_experts, dtype=torch.float64)
    direction = torch.zeros(n_experts, dtype=torch.float64)
    direction[0], direction[-1] = 1.0, -1.0
    bend = phi.value(uniform + h * direction) + phi.value(uniform - h * direction)
    assert (bend / (2 * h**2)).item() == pytest.approx(n_experts, rel=1e-4)
    assert phi.curvature(n_experts) == pytest.approx(n_experts, rel=1e-9)
    p = torch.softmax(torch.linspace(-3, 3, n_experts), -1)
    assert abs(phi.price(p).sum().item()) <= 1e-6 * n_experts
    assert abs(phi.price(p.double()).sum().item()) <= 1e-9


@pytest.mark.parametrize("name", VARIANTS)
def test_prices_near_balance_should_be_the_relative_load(name: str) -> None:
    p = torch.full((E,), 1.0 / E, dtype=torch.float64)
    p[0], p[1] = p[0] + 1e-6, p[1] - 1e-6
    assert torch.allclose(VARIANTS[name].price(p), E * p - 1.0, atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_target_should_be_the_minimizer_with_price_zero(name: str) -> None:
    phi = EVERY[name]
    target = phi.target_loads(loads())
    assert abs(phi.value(target).item()) <= 1e-12
    assert phi.price(target).abs().max() <= 1e-12
    others = loads(6, n=50)
    assert (phi.value(others) > 0).all()


@pytest.mark.parametrize(
    "name", ["shannon-target", "quadratic-target", "power", "softplus", "log_cosh-target"]
)
def test_scipy_should_find_the_target_on_the_simplex(name: str) -> None:
    phi = EVERY[name]
    found = minimize(
        lambda p: phi.value(torch.from_numpy(p)).item(),
        loads(7)[0].numpy(),
        jac=lambda p: phi.gradient(torch.from_numpy(p)).numpy(),
        bounds=[(1e-9, 1)] * E,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(found.x, phi.target_loads(loads()).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_mirror_step_should_be_the_moving_average(name: str) -> None:
    """Must 3: stepping the prices along the conjugate's map is the EMA of the loads, 1e-12."""
    phi, p = EVERY[name], loads(8, spread=0.3)
    m, batch, eta = p[0], p[1], 0.3
    q = phi.gradient(m)
    q_next = phi.gradient((1 - eta) * phi.inverse(q) + eta * batch)
    expected = (1 - eta) * m + eta * batch
    assert (phi.inverse(q_next) - expected).abs().max() <= 1e-12


def test_dual_gap_of_shannon_should_be_kullback_leibler() -> None:
    """Must 5: >= 0, and scipy's KL(p || m) within 1e-12."""
    p, m = loads(9).numpy(), loads(10).numpy()
    gap = moe.Shannon().bregman(torch.from_numpy(p), torch.from_numpy(m)).numpy()
    np.testing.assert_allclose(gap, sp.rel_entr(p, m).sum(-1), atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.01, 3.0))
def test_dual_gap_should_not_be_negative(name: str, seed: int, spread: float) -> None:
    """Must 5, and prices that rise with the load."""
    p = loads(seed, n=2, spread=spread)
    phi = EVERY[name]
    assert phi.bregman(p[0], p[1]).item() >= -1e-12
    rise = ((phi.gradient(p[0]) - phi.gradient(p[1])) * (p[0] - p[1])).sum().item()
    assert rise >= -1e-12
    # Symmetric members: exchanging two experts exchanges their prices.
    if phi.target is None:
        swapped = phi.price(p[0].flip(0)).flip(0)
        assert torch.allclose(swapped, phi.price(p[0]), atol=1e-9)


@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.startswith("log_sum_exp")])
def test_second_derivatives_should_be_the_hessians_diagonal(name: str) -> None:
    phi, p = VARIANTS[name], loads(11)[0]
    hessian = torch.autograd.functional.hessian(lambda x: phi.value(x), p)
    assert torch.allclose(phi.second_derivatives(p), hessian.diagonal(), rtol=1e-8)
    assert (hessian - torch.diag(hessian.diagonal())).abs().max() <= 1e-9


def test_second_derivatives_of_log_sum_exp_should_leave_out_the_rank_one_part() -> None:
    phi, p = moe.LogSumExp(), loads(11)[0]
    s = torch.softmax(4 * E * p, -1)
    hessian = torch.autograd.functional.hessian(lambda x: phi.value(x), p)
    rank_one = phi.scale(E) * 4 * E * torch.outer(s, s)
    assert torch.allclose(torch.diag(phi.second_derivatives(p)) - rank_one, hessian, atol=1e-9)


@pytest.mark.parametrize("name", MEMBERS)
def test_float32_and_empty_experts_should_stay_finite(name: str) -> None:
    p = torch.tensor([1.0, 0.0, 0.0, 0.0])
    for floor in (1e-6, 1e-3):
        price = MEMBERS[name].price(p, floor=floor)
        assert torch.isfinite(price).all()
        assert price[0] > price[1]
        assert price.dtype == torch.float32


class Quartic(moe.Potential):
    """A user's own: nothing but the value."""

    def raw_value(self, loads: torch.Tensor) -> torch.Tensor:
        return (loads**4).sum(-1)


def test_own_potential_should_need_only_its_value() -> None:
    phi, p = Quartic(), loads(12)
    assert phi.curvature(E) == pytest.approx(E)
    slope = 4 * p**3
    expected = phi.scale(E) * (slope - slope.mean(-1, keepdim=True))
    assert torch.allclose(phi.price(p), expected)
    power = moe.Power(r=4.0)
    assert torch.allclose(phi.price(p), power.price(p))
    with torch.no_grad():
        assert torch.allclose(phi.price(p), expected)
    with pytest.raises(InputError, match=r"Quartic has no conjugate.*Write raw_conjugate"):
        phi.conjugate(p)
    with pytest.raises(InputError, match="Quartic has no inverse"):
        phi.inverse(p)


def test_bare_potential_should_ask_for_its_value() -> None:
    with pytest.raises(NotImplementedError, match="raw_value"):
        moe.Potential().price(loads())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: resolve_potential("shanon"), "Did you mean 'shannon'"),
        (lambda: resolve_potential(3.0), "a potential is a name or a moe.Potential"),  # type: ignore[arg-type]
        (lambda: moe.Power(r=1.0), "r shapes the potential: expected a finite number above 1"),
        (lambda: moe.Tsallis(a=1.0), "above 0, not 1, got 1.0"),
        (lambda: moe.LogCosh(sharpness=math.inf), "sharpness shapes the potential"),
        (lambda: moe.Shannon(target=[0.5, 0.6]), "target loads are a probability vector"),
        (lambda: moe.Shannon(target=[1.0, 0.0]), "all above 0"),
        (lambda: moe.Shannon(target=[0.5, float("nan")]), "all above 0"),
        (lambda: moe.Shannon(target=[0.5, 0.5]).price(loads()), "expected 8 shares, got 2"),
    ],
)
def test_bad_potentials_should_be_refused(make, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=text):
        make()


def test_identity_should_tell_parameters_and_targets_apart() -> None:
    names = [phi.identity() for phi in EVERY.values()]
    assert len(set(names)) == len(names)
    assert resolve_potential("tsallis", target=TARGET).identity() == EVERY["tsallis-target"].identity()

"""The score on exact laws: statements 1-6, 10, 12 and 13 of what must be true, sign by sign."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from exact_law import (
    N_X,
    PROBLEMS,
    TARGET,
    D,
    W,
    central,
    objective,
    or_zero,
    random_law,
    scores,
    solve_h,
    truth,
)

from metier.bilevel import (
    BilevelProblem,
    CustomLoss,
    ExponentialWeight,
    LogCosh,
    Squared,
    TorchLoss,
    check_loss,
)
from metier.bilevel.scores import (
    Nuisances,
    inner_scores,
    objective_scores,
    outer_scores,
    quadratic_scores,
)

SEEDS = (0, 1)
names = pytest.mark.parametrize("name", PROBLEMS)
seeds = pytest.mark.parametrize("seed", SEEDS)
NUISANCES = ("h", "adjoint", "jacobian", "adjoint_jacobian")


def directions(law, nuisances, rng):
    """A random function of x for every nuisance."""
    out = {}
    for name in NUISANCES:
        shape = getattr(nuisances, name).shape[1:]
        out[name] = rng.normal(size=(N_X, *shape))[law.x]
    return out


def moved(nuisances, direction, t, only=NUISANCES):
    return replace(nuisances, **{name: getattr(nuisances, name) + t * direction[name] for name in only})


def gradient(law, problem, w):
    """E[d_w l_out + d2_wv l_in a], the definition of the target."""
    at = truth(law, problem, w)
    inner = problem.inner_loss.derivatives(w, at.h, law.rows)
    outer = problem.outer_loss.derivatives(w, at.h, law.rows)
    rows = np.einsum("ndq,nq->nd", or_zero(inner.d2_wv, at.h), at.adjoint)
    return law.mean(rows if outer.d_w is None else rows + outer.d_w)


@names
@seeds
def test_1_mean_score_should_be_the_difference_of_the_objective(name, seed):
    law, problem = random_law(seed), PROBLEMS[name]
    mean = law.mean(scores(law, problem, W, truth(law, problem, W)))
    np.testing.assert_allclose(mean, central(lambda w: objective(law, problem, w), W), atol=1e-8)
    np.testing.assert_allclose(mean, gradient(law, problem, W), atol=1e-12)


@names
@seeds
def test_2_jacobians_should_be_differences_of_the_solution_and_the_adjoint(name, seed):
    law, problem = random_law(seed), PROBLEMS[name]
    at = truth(law, problem, W)
    J = np.moveaxis(central(lambda w: truth(law, problem, w).h, W), 0, 1)
    A2 = np.moveaxis(central(lambda w: truth(law, problem, w).adjoint, W), 0, 1)
    np.testing.assert_allclose(at.jacobian, J, atol=1e-8)
    if name != "custom, huber":
        np.testing.assert_allclose(at.adjoint_jacobian, A2, atol=1e-8)
    else:  # The kink of Huber is nowhere near the rows' values.
        np.testing.assert_allclose(at.adjoint_jacobian, A2, atol=1e-7)


@names
@seeds
def test_3_score_should_be_orthogonal_in_each_nuisance_and_the_plugin_should_not(name, seed):
    law, problem = random_law(seed), PROBLEMS[name]
    at = truth(law, problem, W)
    direction = directions(law, at, np.random.default_rng(seed + 50))
    for only in NUISANCES:
        up, down = (
            law.mean(scores(law, problem, W, moved(at, direction, t, (only,)))) for t in (1e-5, -1e-5)
        )
        np.testing.assert_allclose((up - down) / 2e-5, 0.0, atol=1e-8, err_msg=only)

    def plugin(t):
        here = moved(at, direction, t, ("h",))
        return law.mean(outer_scores(problem.outer_loss.derivatives(W, here.h, law.rows), here))

    assert np.abs((plugin(1e-5) - plugin(-1e-5)) / 2e-5).max() > 1e-2


@names
@seeds
def test_4_halving_all_errors_should_quarter_the_bias_and_halve_the_plugins(name, seed):
    law, problem = random_law(seed), PROBLEMS[name]
    at = truth(law, problem, W)
    direction = directions(law, at, np.random.default_rng(seed + 60))
    target = gradient(law, problem, W)
    biases, plugin_biases = [], []
    for t in (0.1, 0.05, 0.025):
        here = moved(at, direction, t)
        outer = problem.outer_loss.derivatives(W, here.h, law.rows)
        biases.append(np.linalg.norm(law.mean(scores(law, problem, W, here)) - target))
        plugin_biases.append(np.linalg.norm(law.mean(outer_scores(outer, here)) - target))
    ratios = np.array(biases[:-1]) / biases[1:]
    plugin_ratios = np.array(plugin_biases[:-1]) / plugin_biases[1:]
    assert ((ratios > 3.5) & (ratios < 4.5)).all(), ratios
    assert ((plugin_ratios > 1.7) & (plugin_ratios < 2.3)).all(), plugin_ratios


@names
@seeds
def test_5_score_should_be_the_influence_function(name, seed):
    law, problem = random_law(seed), PROBLEMS[name]
    s = np.random.default_rng(seed + 70).uniform(-1, 1, size=len(law.p))
    s -= law.mean(s)
    at = truth(law, problem, W)
    phi = scores(law, problem, W, at)
    expected = law.mean((phi - law.mean(phi)) * s[:, None])
    t = 1e-5
    up, down = (gradient(law.tilted(1 + sign * t * s), problem, W) for sign in (1, -1))
    np.testing.assert_allclose((up - down) / (2 * t), expected, atol=1e-8)


@seeds
def test_6_general_code_should_be_the_quadratic_formulas_row_by_row(seed):
    law, problem = random_law(seed), PROBLEMS["squared"]
    rng = np.random.default_rng(seed + 80)
    h, j, r = (rng.normal(size=(N_X, *s))[law.x] for s in ((), (D,), ()))
    at = Nuisances(h[:, None], -r[:, None], j[:, :, None], -j[:, :, None])
    g, dg = TARGET.evaluate(W, law.rows)
    quadratic = quadratic_scores(g[:, 0], dg[:, :, 0], law.rows["Y"], j, r)
    np.testing.assert_allclose(scores(law, problem, W, at), quadratic, atol=1e-12)


@seeds
def test_6_quadratic_score_should_be_doubly_robust_with_the_stated_bias(seed):
    law, problem = random_law(seed), PROBLEMS["squared"]
    g, dg = (x[..., 0] for x in TARGET.evaluate(W, law.rows))
    y = law.rows["Y"]
    j, r = law.conditional(dg), law.conditional(g - y)
    target = law.mean(j * r[:, None])
    rng = np.random.default_rng(seed + 90)
    bad_j, bad_r = j + rng.normal(size=(N_X, D))[law.x], r + rng.normal(size=N_X)[law.x]
    np.testing.assert_allclose(law.mean(quadratic_scores(g, dg, y, j, bad_r)), target, atol=1e-12)
    np.testing.assert_allclose(law.mean(quadratic_scores(g, dg, y, bad_j, r)), target, atol=1e-12)
    bias = law.mean(quadratic_scores(g, dg, y, bad_j, bad_r)) - target
    np.testing.assert_allclose(bias, -law.mean((bad_j - j) * (bad_r - r)[:, None]), atol=1e-12)
    np.testing.assert_allclose(gradient(law, problem, W), target, atol=1e-12)


def reparametrized(loss, *, scale=None, extra=None, B=None, shift=None):
    """l -> c(w) l + f(w, Z), and v -> B v + c(w): by CustomLoss, from finite chain rules written out here."""
    scale = scale or (lambda w: (1.0, np.zeros(D)))
    q = 1 if B is None else len(B)
    B = np.eye(q) if B is None else B
    shift = shift or (lambda w: (np.zeros(q), np.zeros((D, q))))

    def at(w, v, z):
        # v is the new coordinate, B v + c(w) the new name of the old one's inverse.
        c, dc = shift(w)
        inverse = np.linalg.inv(B)
        old = (v - c) @ inverse.T
        x = loss.derivatives(w, old, z)
        dold = -dc @ inverse.T
        d_w = np.zeros((len(v), D)) if x.d_w is None else x.d_w
        d2_wv = np.zeros((len(v), D, q)) if x.d2_wv is None else x.d2_wv
        d3_v = np.zeros((len(v), q, q, q)) if x.d3_v is None else x.d3_v
        d3_wvv = np.zeros((len(v), D, q, q)) if x.d3_wvv is None else x.d3_wvv
        new = {
            "value": x.value,
            "d_v": x.d_v @ inverse,
            "d2_v": np.einsum("nab,ai,bj->nij", x.d2_v, inverse, inverse),
            "d3_v": np.einsum("nabc,ai,bj,ck->nijk", d3_v, inverse, inverse, inverse),
            "d_w": d_w + x.d_v @ dold.T,
            "d2_wv": np.einsum("nda,ai->ndi", d2_wv + np.einsum("nab,db->nda", x.d2_v, dold), inverse),
            "d3_wvv": np.einsum(
                "ndab,ai,bj->ndij", d3_wvv + np.einsum("nabc,dc->ndab", d3_v, dold), inverse, inverse
            ),
        }
        s, ds = scale(w)
        out = {name: s * value for name, value in new.items()}
        out["d_w"] = out["d_w"] + new["value"][:, None] * ds
        out["d2_wv"] = out["d2_wv"] + np.einsum("d,nq->ndq", ds, new["d_v"])
        out["d3_wvv"] = out["d3_wvv"] + np.einsum("d,nqp->ndqp", ds, new["d2_v"])
        if extra is not None:
            out["value"] = out["value"] + extra(w, z)[0]
            out["d_w"] = out["d_w"] + extra(w, z)[1]
        return out

    parts = ("d_v", "d2_v", "d_w", "d2_wv", "d3_v", "d3_wvv")
    return CustomLoss(
        lambda w, v, z: at(w, v, z)["value"],
        **{name: (lambda w, v, z, name=name: at(w, v, z)[name]) for name in parts},
    )


def extra_term(w, z):
    value = np.sin(z["u"] @ w) * z["m"]
    return value, (np.cos(z["u"] @ w) * z["m"])[:, None] * z["u"]


ROTATION = np.array([[1.5, 0.4], [-0.3, 0.8]])


def shifted(q):
    C = np.linspace(-1, 1, 3 * q).reshape(3, q)
    return lambda w: (np.tanh(w) @ C, (1 / np.cosh(w) ** 2)[:, None] * C)


@pytest.mark.parametrize("name", ["log-cosh, logistic", "poisson, log-cosh", "softmax"])
@pytest.mark.parametrize("change", ["scale", "extra", "coordinates"])
def test_10_rows_of_the_score_should_not_see_how_the_inner_problem_is_written(name, change):
    law, problem = random_law(3), PROBLEMS[name]
    q = problem.outputs(law.rows)
    B = ROTATION if q == 2 else np.array([[1.7]])
    outer = problem.outer_loss
    if change == "scale":
        rate = np.array([0.5, -0.2, 0.3])
        # A scale needs the value's q only through the identity.
        inner = reparametrized(
            problem.inner_loss, scale=lambda w: (np.exp(rate @ w), rate * np.exp(rate @ w)), B=np.eye(q)
        )
    elif change == "extra":
        inner = reparametrized(problem.inner_loss, extra=extra_term, B=np.eye(q))
    else:
        inner = reparametrized(problem.inner_loss, B=B, shift=shifted(q))
        outer = reparametrized(problem.outer_loss, B=B, shift=shifted(q))
    other = BilevelProblem(inner, outer, n_outputs=q)
    check_loss(inner, W, np.full((30, q), 0.3), law.rows)
    one = scores(law, problem, W, truth(law, problem, W))
    two = scores(law, other, W, truth(law, other, W))
    np.testing.assert_allclose(two, one, atol=1e-10)


def test_10_an_outer_term_free_of_v_should_add_its_gradient():
    law, problem = random_law(3), PROBLEMS["log-cosh, logistic"]
    other = BilevelProblem(problem.inner_loss, reparametrized(problem.outer_loss, extra=extra_term))
    at = truth(law, problem, W)
    difference = scores(law, other, W, truth(law, other, W)) - scores(law, problem, W, at)
    np.testing.assert_allclose(difference, extra_term(W, law.rows)[1], atol=1e-12)


def test_12_two_laws_should_give_the_gradient_by_the_sum_of_their_means():
    p_x = np.array([0.1, 0.3, 0.15, 0.2, 0.05, 0.2])
    inner_law, outer_law = random_law(5), random_law(6, p_x=p_x)
    problem = PROBLEMS["poisson, log-cosh"]

    def h_on_outer(w):
        h = solve_h(inner_law, problem.inner_loss, w, 1)
        return h[np.searchsorted(inner_law.x, outer_law.x)]

    def F(w):
        return outer_law.mean(problem.outer_loss.derivatives(w, h_on_outer(w), outer_law.rows).value)

    at = two_law_truth(inner_law, outer_law, problem, W)
    on_outer = Nuisances(
        *(getattr(at, name)[np.searchsorted(inner_law.x, outer_law.x)] for name in NUISANCES)
    )
    inner = problem.inner_loss.derivatives(W, at.h, inner_law.rows)
    outer = problem.outer_loss.derivatives(W, on_outer.h, outer_law.rows)
    phi_in, phi_out = inner_scores(inner, at), outer_scores(outer, on_outer)
    total = outer_law.mean(phi_out) + inner_law.mean(phi_in)
    np.testing.assert_allclose(total, central(F, W), atol=1e-8)
    np.testing.assert_allclose(inner_law.conditional(phi_in), 0.0, atol=1e-10)


def two_law_truth(P, Q, problem, w):
    """a and A2 by risks with curvature from P and outer terms from Q: the ratio of masses enters."""
    first = np.searchsorted(P.x, np.arange(N_X))
    onto = np.searchsorted(P.x, Q.x)
    h = solve_h(P, problem.inner_loss, w, 1)
    inner = problem.inner_loss.derivatives(w, h, P.rows)
    outer = problem.outer_loss.derivatives(w, h[onto], Q.rows)
    ratio = np.bincount(Q.x, weights=Q.p) / np.bincount(P.x, weights=P.p)
    K = P.conditional(inner.d2_v)[:, 0, 0]
    J = -P.conditional(inner.d2_wv)[:, :, 0] / K[:, None]

    def from_outer(values):
        at_x = Q.conditional(values)[np.searchsorted(Q.x, np.arange(N_X))]
        return (at_x * ratio.reshape(-1, *[1] * (values.ndim - 1)))[P.x]

    a = -from_outer(outer.d_v)[:, 0] / K
    bent = inner.d3_v[:, 0, 0, 0] * a
    M_in = inner.d3_wvv[:, :, 0, 0] * a[:, None] + J * bent[:, None]
    M_out = outer.d2_wv[:, :, 0] + J[onto] * outer.d2_v[:, 0]
    A2 = -(P.conditional(M_in) + from_outer(M_out)) / K[:, None]
    assert len(first) == N_X
    return Nuisances(h, a[:, None], J[:, :, None], A2[:, :, None])


@seeds
def test_13_shrinkage_should_have_its_closed_forms(seed):
    law = random_law(seed)
    rows = {**law.rows, "q": (0.5 + law.x / 5.0)}
    law = replace(law, rows=rows)
    problem = BilevelProblem(
        Squared("Y") + Squared(0.0, weight=ExponentialWeight(None, base="q")), Squared("Y")
    )
    w = np.array([0.3])
    q, mu = rows["q"] * np.exp(w[0]), law.conditional(rows["Y"])
    h = mu / (1 + q)
    a, J = (mu - h) / (1 + q), -q * h / (1 + q)
    at = Nuisances(h[:, None], a[:, None], J[:, None, None], (-(q * a + J) / (1 + q))[:, None, None])
    inner = problem.inner_loss.derivatives(w, at.h, rows)
    outer = problem.outer_loss.derivatives(w, at.h, rows)
    mean = law.mean(outer_scores(outer, at) + inner_scores(inner, at))
    np.testing.assert_allclose(mean, law.mean((h - mu) * J), atol=1e-12)
    np.testing.assert_allclose(mean, central(lambda u: objective(law, problem, u), w), atol=1e-8)
    assert mean[0] > 0


@names
def test_7_derivative_of_the_objective_score_should_be_the_gradient_score(name):
    """With h_w and a_w moving, the total derivative of m_F in w is phi, row by row."""
    law, problem = random_law(2), PROBLEMS[name]

    def m(w):
        at = truth(law, problem, w)
        inner = problem.inner_loss.derivatives(w, at.h, law.rows)
        outer = problem.outer_loss.derivatives(w, at.h, law.rows)
        return objective_scores(inner, outer, at.adjoint)

    difference = np.moveaxis(central(m, W), 0, 1)
    np.testing.assert_allclose(scores(law, problem, W, truth(law, problem, W)), difference, atol=1e-7)


def test_1_two_outputs_should_agree_with_automatic_differentiation():
    """A torch loss of two outputs against autograd through one exact Newton step, to 1e-10."""
    torch = pytest.importorskip("torch")
    law = random_law(4)

    def inner(w, v, z):
        mixed = torch.logsumexp(torch.stack([v[0], v[1], 0.5 * v[0] * torch.tanh(z["u"] @ w)]), 0)
        return mixed + ((v - z["G2"] - w @ z["dG2"]) ** 2).sum() * torch.exp(z["u"] @ w) / 2

    def outer(w, v, z):
        return torch.cos(v[0] * v[1]) + v[1] ** 2 * torch.exp(z["u"] @ w) + w[0] * v[0]

    problem = BilevelProblem(inner, outer, n_outputs=2)
    assert isinstance(problem.inner_loss, TorchLoss)
    at = truth(law, problem, W)
    mean = law.mean(scores(law, problem, W, at))

    w = torch.tensor(W, requires_grad=True)
    rows = {name: torch.as_tensor(x) for name, x in law.rows.items()}
    p, h = torch.as_tensor(law.p), torch.as_tensor(at.h)
    H = torch.as_tensor(law.conditional(problem.inner_loss.derivatives(W, at.h, law.rows).d2_v))
    per_row = torch.func.vmap(torch.func.grad(inner, argnums=1), in_dims=(None, 0, 0))(w, h, rows)
    by_x = torch.stack(
        [(p[law.x == k, None] * per_row[law.x == k]).sum(0) / p[law.x == k].sum() for k in range(N_X)]
    )
    step = torch.linalg.solve(H, by_x[law.x][:, :, None])[:, :, 0]
    values = torch.func.vmap(outer, in_dims=(None, 0, 0))(w, h - step, rows)
    (p @ values).backward()
    np.testing.assert_allclose(mean, w.grad.numpy(), atol=1e-10)


def test_log_cosh_should_be_squared_in_the_limit_of_large_delta():
    law = random_law(0)
    v = np.random.default_rng(0).normal(size=(30, 1))
    near = LogCosh("Y", delta=1e4).derivatives(W, v, law.rows)
    np.testing.assert_allclose(near.value, Squared("Y").derivatives(W, v, law.rows).value, rtol=1e-5)

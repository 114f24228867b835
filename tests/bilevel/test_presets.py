"""Presets built from the parts, and that none of them needs torch (number 22 of what must be true)."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.preprocessing import PolynomialFeatures

from metier.bilevel import (
    BilevelProblem,
    ExponentialWeight,
    OBiGrad,
    SieveRidge,
    SmoothPinball,
    Squared,
)

WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("torch is not here", name="torch")

sys.meta_path.insert(0, NoTorch())
import numpy as np
from metier.bilevel import FittedBellman, IVBilevel, SourceReweighting
rng = np.random.default_rng(0)
z, u = rng.normal(size=(300, 2)), rng.normal(size=300)
t = z.sum(axis=1) + u
print(IVBilevel().fit(2 * t - u, t, z, controls=rng.normal(size=(300, 1))).summary())
FittedBellman(discount=0.5).fit(z, z[:, 0], 0.5 * z + 0.1, features=z + 0.3 * rng.normal(size=z.shape))
source = np.arange(300) % 3
found = SourceReweighting().fit(z, t, source, trusted=0, judge=False)
print(found.summary())
assert "torch" not in sys.modules
"""


def test_estimators_should_run_without_torch():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Anderson-Rubin" in done.stdout
    assert "Weights of data sources" in done.stdout


def test_the_strength_of_a_penalty_should_have_its_closed_form_gradient():
    """Preset c: h = mu / (1 + e^w q), so that F'(w) = E[(h - mu) J] with J = -e^w q h / (1 + e^w q)."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, size=(4000, 1))
    mu, q, w = 1.0 + x[:, 0], 0.5 + x[:, 0] ** 2, 0.3
    rows = {"Y": mu + 0.3 * rng.normal(size=4000), "q": q}
    inner = Squared("Y") + Squared(0.0, weight=ExponentialWeight(None, base="q"))
    learner = SieveRidge(PolynomialFeatures(6, include_bias=False), penalty=1e-6)
    model = OBiGrad(BilevelProblem(inner, Squared("Y")), learner=learner, rng=0).fit(x, rows)
    estimate = model.hypergradient([w])

    def gradient(at):
        s = np.exp(w) * (0.5 + at**2)
        h = (1.0 + at) / (1.0 + s)
        return -(h - (1.0 + at)) * s * h / (1.0 + s)

    grid = (np.arange(2000) + 0.5) / 1000 - 1.0
    truth = gradient(grid).mean()
    assert abs(estimate.value[0] - truth) < 4 * estimate.stderr[0]
    assert estimate.stderr[0] < 0.05 * truth


def test_a_smoothed_quantile_should_be_an_inner_problem():
    """Preset e: the pinball loss has no curvature; smoothed, its adjoint exists."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, size=(1500, 1))
    rows = {"Y": x[:, 0] + rng.normal(size=1500), "u": np.ones(1500)}
    inner = SmoothPinball("Y", quantile=0.8, smoothing=0.5) + Squared(0.0, weight=ExponentialWeight("u"))
    learner = SieveRidge(PolynomialFeatures(2, include_bias=False), penalty=1e-3)
    model = OBiGrad(BilevelProblem(inner, Squared("Y")), learner=learner, rng=0).fit(x, rows)
    estimate = model.hypergradient([-2.0])
    up, down = (model.objective([-2.0 + h]).value for h in (0.05, -0.05))
    assert estimate.value[0] == pytest.approx((up - down) / 0.1, abs=2 * estimate.stderr[0])
    assert np.isfinite(estimate.stderr[0])

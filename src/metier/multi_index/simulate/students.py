"""A two-layer student in torch on a committee or a hierarchy, and which unit learned which direction."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import non_negative, positive_int
from metier.core.errors import InputError
from metier.core.extras import require
from metier.core.rng import derive, derive_seed
from metier.multi_index.activations import Activation, as_activation
from metier.multi_index.expression.nodes import Add, Call, Constant, Mul, Node, Num, Pow, Var
from metier.multi_index.thresholds import positive

from .matching import Baseline, Specialization, SpecializedRun, random_baseline, specialization
from .sgd import slope_of
from .teachers import plant

Floats = NDArray[np.float64]

FRESH = 4000


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StudentRun(SpecializedRun):
    """Trained students, one per seed, matched with their teachers.

    Args:
        sample_ratio: n/d of the training set.
        specializations: one per seed: overlaps, matching, index, subspace error, assignment.
        baseline: the index of students that know nothing.
        excess_risk: prediction error beyond the noise on fresh data, per seed.
        null_risk: the same of predicting the mean.
        train_loss: mean squared error on the training set, per seed.
        steps: optimizer steps.
        status: "heuristic": the ratios it is compared with are those of an ideal student, not of SGD.
    """

    activation: str
    sample_ratio: float
    dimension: int
    noise: float
    specializations: tuple[Specialization, ...]
    baseline: Baseline
    excess_risk: Floats
    null_risk: float
    train_loss: Floats
    steps: int
    status: str = "heuristic"

    def summary(self) -> str:
        """Return the main numbers in one line."""
        return (
            f"{self.activation}, n/d {self.sample_ratio:g}, d {self.dimension}: "
            f"specialization {self.spread}, nothing learned {self.baseline.mean:.3f}, "
            f"subspace error {self.subspace_error.mean():.3f}, "
            f"risk {self.excess_risk.mean():.3g} of {self.null_risk:.3g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return {
            "activation": self.activation,
            "sample_ratio": self.sample_ratio,
            "dimension": self.dimension,
            "noise": self.noise,
            "index": self.index.tolist(),
            "excess": self.excess.tolist(),
            "subspace_error": self.subspace_error.tolist(),
            "baseline": {"mean": self.baseline.mean, "sd": self.baseline.sd},
            "excess_risk": self.excess_risk.tolist(),
            "null_risk": self.null_risk,
            "train_loss": self.train_loss.tolist(),
            "steps": self.steps,
            "status": self.status,
        }


def train_student(
    activation: str | Activation,
    *,
    n_units: int,
    noise: float,
    sample_ratio: float,
    decay: float | None = None,
    n_student: int | None = None,
    dimension: int = 100,
    n_seeds: int = 4,
    steps: int = 1000,
    batch: int = 256,
    learning_rate: float = 0.02,
    normalize: bool = False,
    rng: int = 0,
) -> StudentRun:
    """Train a two-layer network by Adam on data of a planted committee or hierarchy.

    The student is f(x) = sum_j a_j sigma(<v_j, x>) + b, all of a, v, b trained on the squared error.

    Args:
        activation: name or expression; teacher and student share it.
        n_units: teacher units: strengths n_units^-1/2, or k^-decay.
        noise: variance of the noise.
        sample_ratio: n/d; the sample is reused in every epoch.
        decay: gamma of a hierarchy; None is a committee.
        n_student: student units; as many as the teacher's by default.
        dimension: d.
        n_seeds: teachers, data sets and starts.
        steps, batch, learning_rate: of Adam, with a cosine decay of the rate to 0.
        normalize: divide sigma by its standard deviation.
        rng: seed.

    Returns:
        Per seed who learned what, with the risk on fresh data.

    Raises:
        InputError: a callable, a step activation, or settings out of range.
        MissingExtraError: torch is not installed.

    Example:
        >>> run = train_student("He2", n_units=2, noise=0.1, sample_ratio=8, dimension=20, n_seeds=1, steps=9)
        >>> run.specializations[0].assignment.weights.shape
        (2, 2)

    Source: ours.
    """
    sigma = as_activation(activation, normalize=normalize)
    slope_of(sigma)
    units = positive_int("n_units", n_units)
    width = units if n_student is None else positive_int("n_student", n_student)
    ratio, variance = positive("sample_ratio", sample_ratio), non_negative("noise", noise)
    size = positive_int("dimension", dimension, minimum=8)
    count, rows = positive_int("steps", steps), positive_int("batch", batch)
    rate = positive("learning_rate", learning_rate)
    found, risks, losses, nulls = [], [], [], []
    for seed in range(positive_int("n_seeds", n_seeds)):
        generator = derive(rng, "student", seed)
        teacher = plant(sigma, generator, dimension=size, n_units=units, decay=decay, noise=variance)
        X, y = teacher.sample(max(2, round(ratio * size)), generator)
        weights, predict, loss = _train(
            sigma, X, y, width, count, rows, rate, derive_seed(rng, "student", seed, "torch")
        )
        fresh = generator.standard_normal((FRESH, size))
        target = teacher.signal(fresh)
        found.append(specialization(weights, teacher.directions))
        risks.append(float(np.mean((predict(fresh) - target) ** 2)))
        nulls.append(float(np.var(target)))
        losses.append(loss)
    return StudentRun(
        activation=sigma.name,
        sample_ratio=ratio,
        dimension=size,
        noise=variance,
        specializations=tuple(found),
        baseline=random_baseline(width, units, dimension=size, rng=derive(rng, "student", "baseline")),
        excess_risk=np.array(risks),
        null_risk=float(np.mean(nulls)),
        train_loss=np.array(losses),
        steps=count,
    )


def _train(
    sigma: Activation, X: Floats, y: Floats, width: int, steps: int, batch: int, rate: float, seed: int
) -> tuple[Floats, Callable[[Floats], Floats], float]:
    torch: Any = require("torch")
    if sigma.node is None:
        raise InputError(
            "a torch student needs an expression",
            expected="a name or an expression",
            got=f"the callable {sigma.name}",
            next_step="Write the activation as an expression in x.",
        )
    act = torch_function(sigma.node)
    generator = torch.Generator().manual_seed(seed % 2**63)
    inputs = torch.from_numpy(X).float()
    center = float(y.mean())
    targets = torch.from_numpy(y - center).float()
    d = X.shape[1]
    v = (torch.randn(width, d, generator=generator) / d**0.5).requires_grad_()
    a = torch.full((width,), float(width) ** -0.5).requires_grad_()
    b = torch.full((), -sigma.mean * float(width) ** 0.5).requires_grad_()
    optimizer = torch.optim.Adam([v, a, b], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    size = min(batch, len(targets))
    for _ in range(steps):
        rows = torch.randint(len(targets), (size,), generator=generator)
        error = act(inputs[rows] @ v.T) @ a + b - targets[rows]
        loss = (error * error).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    def predict(fresh: Floats) -> Floats:
        with torch.no_grad():
            out = act(torch.from_numpy(fresh).float() @ v.T) @ a + b
        return np.asarray(out.double().numpy() + center)

    return v.detach().double().numpy(), predict, float(np.mean((predict(X) - y) ** 2))


def torch_function(node: Node) -> Callable[[Any], Any]:
    """Return an expression as a function of torch tensors.

    Example:
        >>> import torch
        >>> from metier.multi_index.expression.reading import parse
        >>> torch_function(parse("relu(x) + 1"))(torch.tensor([-1.0, 2.0])).tolist()
        [1.0, 3.0]
    """
    torch: Any = require("torch")
    match node:
        case Num(value):
            number = float(value)
            return lambda x: torch.full_like(x, number)
        case Constant(name):
            number = np.pi if name == "pi" else np.e
            return lambda x: torch.full_like(x, number)
        case Var():
            return lambda x: x
        case Add(terms):
            parts = [torch_function(term) for term in terms]
            return lambda x: reduce(operator.add, [part(x) for part in parts])
        case Mul(factors):
            parts = [torch_function(factor) for factor in factors]
            return lambda x: reduce(operator.mul, [part(x) for part in parts])
        case Pow(base, exponent):
            inner, p = torch_function(base), int(exponent) if exponent.denominator == 1 else float(exponent)
            return lambda x: inner(x) ** p
        case Call(name, argument):
            # The functions of expressions have torch's names.
            inner = torch_function(argument)
            outer = torch.nn.functional.softplus if name == "softplus" else getattr(torch, name)
            return lambda x: outer(inner(x))
    raise TypeError(f"no torch function of {node!r}")

"""Initial values that give a layer the output scale of the dense layer it stands for."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from .activations import GateActivation
from .forms import Form, MxD, TensorRing, Tucker
from .gates import Gate

SAMPLES = 1024
"""Logit rows from which the initial moments of the gate are estimated (standard error below 2 %)."""


def generator_of(rng: int | None) -> torch.Generator | None:
    """Return a CPU generator seeded by `rng`; None stands for torch's own stream, as in `nn.Linear`.

    Example:
        >>> generator_of(None) is None
        True
    """
    return None if rng is None else torch.Generator().manual_seed(rng)


def fill_normal(parameter: Tensor, mean: float, std: float, generator: torch.Generator | None) -> None:
    """Draw normal values in place, from a stream or from torch's own."""
    if generator is None:
        nn.init.normal_(parameter, mean, std)
    else:
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * std + mean)


def _uniform(parameter: Tensor, bound: float, generator: torch.Generator | None) -> None:
    if generator is None:
        nn.init.uniform_(parameter, -bound, bound)
    else:
        draw = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_((2 * draw - 1) * bound)


@torch.no_grad()
def initialize_gate(gate: Gate, *, std: float | None, generator: torch.Generator | None) -> None:
    """Draw G ~ N(0, std^2); the default 1 / sqrt(I) gives unit logits for unit inputs.

    With layer or batch norm the scale of G cancels in the forward pass but divides the gradient: at
    std = 0 the gradient of G is multiplied by 1 / sqrt(eps), about 300.
    """
    scale = gate.in_features**-0.5 if std is None else std
    fill_normal(gate.weight, 0.0, scale, generator)
    if gate.bias is not None:
        gate.bias.zero_()


@torch.no_grad()
def initialize_form(
    form: Form,
    gate: Gate | None,
    *,
    noise: float = 1.0,
    std: float | None = None,
    generator: torch.Generator | None,
) -> None:
    """Draw the factors so that outputs have the variance of `nn.Linear`'s, 1/3 for unit inputs.

    Experts are copies of one matrix plus noise; with sigma -> `noise`, a_e the initial coefficients of
    mode e, and f a mixture, E[f^2] is prod_e E[(sum_n a_e[n])^2 + sigma^2 ||a_e||^2], and the output factor
    makes up for it. The sum is 1 for every gate but "relu_topk".

    Args:
        form: Factors to fill.
        gate: Gate whose initial coefficients enter; None stands for equal ones.
        noise: sigma, the standard deviation of an expert's deviation from the common matrix.
        std: Standard deviation of G, as in `initialize_gate`.
        generator: Stream of the draws.

    Source: ours; the shape of the draws follows the code of arXiv 2402.12550.
    """
    _uniform_input(form, generator)
    modes = form.shape.n_experts
    moments = [gate_moments(gate, e, std) if gate else (1.0, 1 / n) for e, n in enumerate(modes)]
    # Coefficients that all start at 0 leave nothing to make up for.
    energies = [total + noise**2 * squares or 1.0 for total, squares in moments]
    if isinstance(form, TensorRing):
        _initialize_ring(form, energies, noise, generator)
    elif isinstance(form, Tucker):
        _initialize_tucker(form, energies, noise, generator)
    else:
        for u in form.experts:
            fill_normal(u, 1.0, noise, generator)
        energy = math.prod(energies)
        if isinstance(form, MxD):
            form.last_weight.div_(math.sqrt(energy))
        else:
            _uniform(form.last_weight, math.sqrt(3 / (form.ranks[0] * energy)), generator)


def _uniform_input(form: Form, generator: torch.Generator | None) -> None:
    bound = form.shape.in_features**-0.5
    _uniform(form.input_weight, bound, generator)
    if form.input_bias is not None:
        _uniform(form.input_bias, bound, generator)


def ring_pattern(form: TensorRing, mode: int) -> Tensor:
    """Return the common matrix of an expert core: the identity, or a row of ones where a train starts."""
    rows, columns = form.ranks[mode], form.ranks[mode + 1]
    like = form.experts[mode]
    if mode == 0 and rows == 1 and columns > 1:
        return torch.full((1, columns), columns**-0.5, device=like.device, dtype=like.dtype)
    return torch.eye(rows, columns, device=like.device, dtype=like.dtype)


def _initialize_ring(
    form: TensorRing, energies: list[float], noise: float, generator: torch.Generator | None
) -> None:
    energy = torch.ones(())
    for e, core in enumerate(form.experts):
        pattern = ring_pattern(form, e)
        fill_normal(core, 1.0, noise, generator)
        core.mul_(pattern.flatten())
        second = pattern.double().cpu() ** 2 * energies[e]
        energy = second if e == 0 else energy @ second
    bound = math.sqrt(3 / (form.ranks[-1] * float(energy.sum())))
    _uniform(form.last_weight, bound, generator)


def _initialize_tucker(
    form: Tucker, energies: list[float], noise: float, generator: torch.Generator | None
) -> None:
    *of_experts, r_in, r_out = form.ranks
    for u, rank in zip(form.experts, of_experts, strict=True):
        fill_normal(u, 1.0, noise, generator)
        u.mul_(rank**-0.5)
    fill_normal(form.core, 0.0, r_in**-0.5, generator)
    energy = math.prod(energies)
    _uniform(form.last_weight, math.sqrt(3 / (r_out * energy)), generator)


@torch.no_grad()
def initialize_as_published(form: Form, *, generator: torch.Generator | None) -> None:
    """Draw the factors as the authors' code does: its output scale depends on N and is about 1.7 too small.

    Source: the code of arXiv 2402.12550 for CP and TR; the other forms follow the same rule.
    """
    _uniform_input(form, generator)
    for e, u in enumerate(form.experts):
        fill_normal(u, 1.0, 1.0 if e == 0 else 0.0, generator)
        if isinstance(form, TensorRing):
            u.mul_(torch.eye(form.ranks[e], form.ranks[e + 1], device=u.device, dtype=u.dtype).flatten())
    if isinstance(form, Tucker):
        fill_normal(form.core, 0.0, form.ranks[-2] ** -0.5, generator)
    if not isinstance(form, MxD):
        _uniform(form.last_weight, form.last_weight.shape[1] ** -0.5, generator)


def gate_moments(gate: Gate, mode: int, std: float | None) -> tuple[float, float]:
    """Return the expected (sum_n a_e[n])^2 and ||a_e||^2 of a new gate for unit inputs.

    On the simplex the first is 1; the second is 1/N if the coefficients are uniform, 1 if one-hot.

    Example:
        >>> [round(moment, 6) for moment in gate_moments(Gate(8, (1,)), 0, None)]
        [1.0, 1.0]
    """
    scale = 1.0 if std is None else std * math.sqrt(gate.in_features)
    if gate.norm == "batch" and scale > 0:
        scale = 1.0
    return _moments(gate.activation, gate.norm == "layer", gate.n_experts[mode], scale)


@functools.lru_cache(maxsize=256)
def _moments(activation: GateActivation, layer_norm: bool, n: int, scale: float) -> tuple[float, float]:
    rows = max(32, min(SAMPLES, (1 << 20) // n))
    # A stream of its own: building a layer must not depend on how the moments are found.
    draw = torch.Generator().manual_seed(0)
    with torch.device("cpu"):
        logits = scale * torch.randn(rows, n, generator=draw, dtype=torch.float32)
        if layer_norm:
            logits = torch.nn.functional.layer_norm(logits, (n,), eps=1e-5)
        a = activation(logits).double()
        return float(a.sum(-1).square().mean()), float(a.square().sum(-1).mean())

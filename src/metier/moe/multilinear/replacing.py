"""Replace dense layers and feed-forward blocks of a model by multilinear ones, and report what that did."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metier.core.checks import ensure, non_negative, one_of
from metier.core.errors import InputError

from .activations import GateActivation, gate_activation
from .blocks import MultilinearGLU, MultilinearMLP
from .dense import dense_weight, effective_weight, fill_from_dense, full_rank, noise_generator
from .evaluation import arguments_of, evaluating
from .forms import FORMS, Rank
from .forms.ranks import two_ranks
from .gates import refuse_causal_batch_norm
from .layer import MultilinearMoE, has_gate_bias
from .ranks import largest
from .sizes import expert_modes
from .targets import Pattern, Target, find_targets, looks_causal, refuse_shared


@dataclass(frozen=True, slots=True)
class ReplacedLayer:
    """One replaced module.

    Attributes:
        name: Its name in the model.
        kind: "linear", "mlp" or "glu".
        rank: Ranks by projection ("linear", "up", "down", "activated").
        parameters_before: Parameters of the dense module.
        parameters: Parameters now, gate included.
        weight_error: Relative error of weights by projection.
        output_error: Relative root mean squared error of each projection's outputs on the calibration
            inputs of the dense model; empty without calibration.
        notes: What changed beside the weights.
        config: Constructor arguments of the new module.
    """

    name: str
    kind: str
    rank: dict[str, tuple[int, ...]]
    parameters_before: int
    parameters: int
    weight_error: dict[str, float]
    output_error: dict[str, float]
    notes: tuple[str, ...]
    config: dict[str, Any]

    def summary(self) -> str:
        """Return one line for people."""
        errors = ", ".join(f"{role} {error:.1e}" for role, error in self.weight_error.items())
        outputs = ", ".join(f"{role} {error:.1e}" for role, error in self.output_error.items())
        share = self.parameters / self.parameters_before
        sizes = f"{self.parameters_before:,} -> {self.parameters:,} parameters ({share:.2f})"
        parts = [f"{self.name}: {self.kind}, {sizes}, weight error {errors}"]
        parts += [f"output error {outputs}"] if outputs else []
        return "; ".join([*parts, *self.notes])


@dataclass(frozen=True, slots=True)
class Replacement:
    """What `replace` did, layer by layer; `to_dict()` is a plan that `rebuild` follows.

    Attributes:
        layers: The replaced modules in the model's order.
    """

    layers: tuple[ReplacedLayer, ...]

    def summary(self) -> str:
        """Return one line per layer and a total."""
        before = sum(layer.parameters_before for layer in self.layers)
        after = sum(layer.parameters for layer in self.layers)
        total = f"{len(self.layers)} replaced: {before:,} -> {after:,} parameters ({after / before:.2f})"
        return "\n".join([*(layer.summary() for layer in self.layers), total])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"layers": [asdict(layer) for layer in self.layers]}


CLASSES: dict[str, Any] = {
    "linear": MultilinearMoE,
    "mlp": MultilinearMLP,
    "glu": MultilinearGLU,
}


def replace(
    model: nn.Module,
    pattern: Pattern,
    *,
    n_experts: int | Sequence[int],
    form: str = "cp",
    rank: Rank | None = None,
    budget: float | None = None,
    gate: str | GateActivation = "entmax15",
    norm: str = "layer",
    calibration: Iterable[Any] | None = None,
    noise: float = 0.0,
    ring_ranks: tuple[int, int] = (4, 4),
    causal: bool | None = None,
    force: bool = False,
    rng: int | None = None,
) -> Replacement:
    """Replace modules of a trained model, in place, by multilinear experts that start as the dense modules.

    Linear layers (`nn.Linear`, transformers' `Conv1D`) become `MultilinearMoE`. Feed-forward blocks of
    transformers and timm, and `nn.Sequential(Linear, activation, Linear)`, become `MultilinearMLP` or, with
    gated units, `MultilinearGLU`, whose layers share one gate. A block that matches is replaced as a whole.

    Args:
        model: The model; changed in place.
        pattern: Which modules: a glob over their names ("*.mlp", "encoder.layer.*.intermediate.dense"), a
            list of globs, a compiled regular expression (searched), or a function of name and module.
        n_experts: As in `MultilinearMoE`.
        form: As there.
        rank: As there; with neither rank nor budget the rank is full and the function is kept.
        budget: Share of each dense module's parameters that the new one may have, gate included.
        gate: As in `MultilinearMoE`.
        norm: As there; "batch" is refused in causal models.
        calibration: Batches of the model's inputs (tensors, tuples or dicts): the truncation then has the
            least error of outputs on them, and the report has that error.
        noise: As in `warm_start`.
        ring_ranks: As in `MultilinearMoE`.
        causal: Whether the model is causal; None looks at its configuration.
        force: Allow batch norm in causal models, and weights shared with other modules.
        rng: Seed of the gates and the noise.

    Returns:
        What was replaced: ranks, parameters and errors per layer.

    Raises:
        InputError: Nothing matches, a block is not what it looks like, a budget is too small, or a weight is
            shared with another module (a language model's head with its embedding).

    Example:
        >>> model = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 3))
        >>> x = torch.randn(4, 6)
        >>> before = model(x)
        >>> report = replace(model, ["0", "2"], n_experts=8)
        >>> torch.allclose(model(x), before, atol=1e-5)
        True

    Source: ours.
    """
    modes, form = expert_modes(n_experts), one_of("form", form, FORMS)
    ring_ranks = two_ranks(ring_ranks)
    is_causal = looks_causal(model) if causal is None else causal
    refuse_causal_batch_norm(norm, causal=is_causal, force=force, where=type(model).__name__)
    ensure(
        rank is None or budget is None,
        "a replacement has one size",
        expected="rank or budget",
        got="both",
        next_step="Leave one out.",
    )
    targets = find_targets(model, pattern)
    if not force:
        refuse_shared(model, targets)
    moments = {} if calibration is None else _moments(model, targets, calibration)
    settings = {
        "n_experts": modes, "form": form, "gate": gate_activation(gate), "norm": norm, "causal": is_causal,
        "ring_ranks": ring_ranks, "force": True,
    }  # fmt: skip
    done, parts = [], []
    for i, target in enumerate(targets):
        ranks = _ranks(target, modes, form, rank, budget, ring_ranks, has_gate_bias(gate))
        seed = None if rng is None else rng + i
        new = _build(target, ranks, {**settings, "rng": seed})
        done.append(_fill(target, new, moments.get(target.name, {}), noise, seed))
        parts.append(new.train(target.module.training))
    # The model changes only once every layer could be built.
    for target, new in zip(targets, parts, strict=True):
        _put(model, target.name, new)
    return Replacement(tuple(done))


def rebuild(model: nn.Module, plan: Replacement | Mapping[str, Any]) -> nn.Module:
    """Replace the modules of a plan without values, so that a saved state dict can be loaded.

    Args:
        model: A fresh model of the same architecture; changed in place.
        plan: What `replace` returned, or its `to_dict()` read back from JSON.

    Returns:
        The model.

    Example:
        >>> make = lambda: nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 3))
        >>> model = make()
        >>> plan = replace(model, "0", n_experts=8).to_dict()
        >>> rebuild(make(), plan).load_state_dict(model.state_dict())
        <All keys matched successfully>
    """
    values = plan.to_dict() if isinstance(plan, Replacement) else plan
    for layer in values["layers"]:
        old = model.get_submodule(layer["name"])
        like = next(old.parameters())
        new = CLASSES[layer["kind"]].from_config(layer["config"], device="meta", dtype=like.dtype)
        _put(model, layer["name"], new.to_empty(device=like.device).train(old.training))
    return model


def _ranks(
    target: Target,
    modes: tuple[int, ...],
    form: str,
    rank: Rank | None,
    budget: float | None,
    ring: tuple[int, int],
    gate_bias: bool,
) -> dict[str, Any]:
    shapes = target.shapes(modes)
    if form == "mxd" and budget is None:
        return dict.fromkeys(shapes, rank)
    if budget is None:
        full = {role: full_rank(form, s.slots, s.out_features, ring) for role, s in shapes.items()}
        return full if rank is None else dict.fromkeys(shapes, rank)
    dense = sum(p.numel() for p in target.module.parameters())
    gate = sum(modes) * (next(iter(shapes.values())).in_features + gate_bias)
    factory = FORMS[form]

    def cost(r: int) -> int:
        return gate + sum(
            factory.parameters_of(s, (s.out_features,) if form == "mxd" else factory.resolve_rank(r, s, ring))
            for s in shapes.values()
        )

    allowed = math.floor(non_negative("budget", budget) * dense)
    ensure(
        cost(1) <= allowed,
        f"the budget of {target.name} must pay for the gate and for rank 1",
        expected=f"budget >= {cost(1) / dense:.3f} (the gate alone takes {gate / dense:.3f})",
        got=budget,
        next_step="Raise the budget, or use fewer experts or more modes.",
    )
    return dict.fromkeys(shapes, None if form == "mxd" else largest(lambda r: cost(r) <= allowed))


def _build(target: Target, ranks: dict[str, Any], settings: dict[str, Any]) -> Any:
    dense = {role: dense_weight(layer, where=target.name) for role, layer in target.layers.items()}
    weight = next(iter(dense.values()))[0]
    settings = {**settings, "device": weight.device, "dtype": weight.dtype}
    if target.kind == "linear":
        bias = dense["linear"][1] is not None
        return MultilinearMoE(weight.shape[1], weight.shape[0], rank=ranks["linear"], bias=bias, **settings)
    up, down = dense["up"][0], dense["down"][0]
    return CLASSES[target.kind](
        up.shape[1],
        up.shape[0],
        down.shape[0],
        rank=ranks,
        bias={role: bias is not None for role, (_, bias) in dense.items()},
        activation=target.activation,
        **settings,
    )


def _fill(
    target: Target, new: Any, moments: dict[str, Tensor], noise: float, seed: int | None
) -> ReplacedLayer:
    roles = (
        {"linear": new} if target.kind == "linear" else {role: getattr(new, role) for role in target.layers}
    )
    errors: dict[str, float] = {}
    outputs: dict[str, float] = {}
    for role, layer in roles.items():
        weight, bias = dense_weight(target.layers[role], where=target.name)
        moment = moments.get(role)
        if moment is not None and bias is None:
            moment = moment[:-1, :-1]
        stream = noise_generator(seed, role)
        fill_from_dense(layer.factors, weight, bias, moment=moment, noise=noise, generator=stream)
        column = weight.new_zeros(len(weight)) if bias is None else bias
        dense = torch.cat([weight, column.unsqueeze(1)], dim=1).double()
        off = effective_weight(layer.factors).double() - dense
        errors[role] = float(off.norm() / dense.norm())
        if role in moments:
            full = moments[role].to(dense)
            outputs[role] = float(
                ((off @ full * off).sum().clamp_min(0) / (dense @ full * dense).sum()).sqrt()
            )
    return ReplacedLayer(
        name=target.name,
        kind=target.kind,
        rank={role: layer.factors.ranks for role, layer in roles.items()},
        parameters_before=sum(p.numel() for p in target.module.parameters()),
        parameters=sum(p.numel() for p in new.parameters()),
        weight_error=errors,
        output_error=outputs,
        notes=target.notes,
        config=new.config(),
    )


def _put(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


class _Moment:
    """Sum of z z^T over the rows that reach a layer, a one appended to z; O(I^2) memory."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.rows = 0

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        z = args[0].detach().reshape(-1, args[0].shape[-1]).double()
        z = torch.cat([z, z.new_ones(len(z), 1)], dim=1)
        self.total = z.T @ z if self.total is None else self.total + z.T @ z
        self.rows += len(z)


@torch.no_grad()
def _moments(model: nn.Module, targets: list[Target], batches: Iterable[Any]) -> dict[str, dict[str, Tensor]]:
    sums = {target.name: {role: _Moment() for role in target.layers} for target in targets}
    hooks = [
        layer.register_forward_pre_hook(sums[target.name][role])
        for target in targets
        for role, layer in target.layers.items()
    ]
    try:
        with evaluating(model):
            for batch in batches:
                args, kwargs = arguments_of(batch)
                model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    result: dict[str, dict[str, Tensor]] = {}
    for name, by_role in sums.items():
        for role, moment in by_role.items():
            if moment.total is None or not bool(torch.isfinite(moment.total).all()):
                raise InputError(
                    "calibration batches reach every layer that is replaced",
                    expected=f"finite inputs of {name}",
                    got="none" if moment.total is None else "NaN or infinity",
                    next_step="Pass an iterable of the model's inputs that is not used up.",
                )
            result.setdefault(name, {})[role] = moment.total / moment.rows
    return result

"""Edits with a purpose: correct an output for a sub-population; keep an edit only if others do not lose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from metier.core.checks import ensure
from metier.core.decision import Decision, specialize_or_fall_back

from .edits import Edits, ExpertIndex
from .evaluation import evaluating
from .layer import MultilinearMoE, in_place


@torch.no_grad()
def expert_profile(layer: MultilinearMoE, inputs: Tensor) -> Tensor:
    """Return the mean coefficients (N,) of joint experts over rows of inputs (..., I), in evaluation mode.

    Example:
        >>> layer = MultilinearMoE(4, 2, n_experts=3, rank=2)
        >>> float(expert_profile(layer, torch.randn(10, 4)).sum().round(decimals=4))
        1.0
    """
    rows = inputs.reshape(-1, inputs.shape[-1])
    ensure(
        rows.shape[0] > 0,
        "a profile is the mean over a sub-population",
        expected="at least one row",
        got="none",
        next_step="Check how the sub-population was selected.",
    )
    # Batch norm would normalize by the sub-population itself, and remember it.
    with evaluating(layer):
        return layer.gate_values(rows).mean(0)


def _threshold(layer: MultilinearMoE, profile: Tensor, output: int, amount: float) -> Edits:
    ensure(
        tuple(profile.shape) == (layer.n_joint,),
        "a profile has one entry per joint expert",
        expected=f"shape ({layer.n_joint},)",
        got=f"shape {tuple(profile.shape)}",
        next_step="Use expert_profile(layer, inputs).",
    )
    ensure(
        0 <= output < layer.out_features,
        "thresholding moves one output",
        expected=f"an index from 0 to {layer.out_features - 1}",
        got=output,
        next_step="Check the output's index.",
    )
    like = layer.factors.input_weight
    into, out = like.new_zeros(layer.in_features + 1), like.new_zeros(layer.out_features)
    into[-1], out[output] = amount, 1.0
    return Edits.of(layer.factors, layer.edits, components=[(profile.detach().to(like), into, out)])


@contextmanager
def thresholded(
    layer: MultilinearMoE, profile: Tensor, *, output: int, amount: float
) -> Iterator[MultilinearMoE]:
    """Move one output for inputs whose experts are those of a sub-population, inside the context.

    y_o <- y_o + lambda profile^T a(x), lambda -> `amount`: an input gets more of it the more its
    coefficients resemble the sub-population's mean coefficients.

    Args:
        layer: The layer whose output o is moved, usually a model's head.
        profile: Mean coefficients of the sub-population, from `expert_profile` on training data.
        output: o.
        amount: lambda; 0 changes nothing.

    Example:
        >>> layer = MultilinearMoE(4, 2, n_experts=3, rank=2)
        >>> x = torch.ones(4)
        >>> with torch.no_grad(), thresholded(layer, torch.ones(3), output=0, amount=2.0):
        ...     moved = layer(x)
        >>> (moved - layer(x)).detach().round(decimals=4).tolist()
        [2.0, 0.0]

    Source: arXiv 2402.12550, section 4.2 (expert-conditional thresholding).
    """
    with in_place(layer, _threshold(layer, profile, output, amount)):
        yield layer


def threshold_(layer: MultilinearMoE, profile: Tensor, *, output: int, amount: float) -> MultilinearMoE:
    """Make `thresholded` permanent; `absorbed` then turns it into one more CP component.

    Example:
        >>> layer = MultilinearMoE(4, 2, n_experts=3, rank=2)
        >>> absorbed(threshold_(layer, torch.ones(3), output=0, amount=2.0)).rank
        3
    """
    layer.edits = _threshold(layer, profile, output, amount)
    return layer


@torch.no_grad()
def absorbed(layer: MultilinearMoE) -> MultilinearMoE:
    """Return a plain CP layer equal to an edited one: scales in the experts, additions as extra components.

    Args:
        layer: A "cp" layer with one expert mode. Additions to biases need a layer with bias.

    Returns:
        A layer of rank R + J for J rank-one additions, without edits.

    Raises:
        InputError: The form is not "cp", there are several modes, or an addition needs a bias slot.

    Example:
        >>> layer = MultilinearMoE(4, 2, n_experts=3, rank=2)
        >>> absorbed(layer.edit_(scale={0: 0.0}, bias={1: torch.ones(2)})).edits is None
        True

    Source: ours.
    """
    ensure(
        layer.form == "cp" and len(layer.n_experts) == 1,
        "edits become components of a CP layer with one expert mode",
        expected='form="cp" and n_experts=N',
        got=f"form={layer.form!r} and n_experts={layer.n_experts}",
        next_step="Keep the edits beside the factors: they are saved with the layer.",
    )
    edits = layer.edits or Edits(0, 0, layer.factors)
    ensure(
        layer.bias or not bool(edits.into[:, -1].any()),
        "an addition to biases needs the bias slot",
        expected="bias=True",
        got="bias=False",
        next_step="Keep the edits beside the factors: they are saved with the layer.",
    )
    old, state = layer.factors, dict(layer.state_dict())
    experts = old.experts[0].detach().clone()
    for (n,), factor in edits.scales().items():
        experts[n] *= factor
    merged = {
        "experts.0": torch.cat([experts, edits.expert.T], dim=1),
        "input_weight": torch.cat([old.input_weight, edits.into[:, :-1]]),
        "output_weight": torch.cat([old.last_weight, edits.out.T], dim=1),
    }
    if old.input_bias is not None:
        merged["input_bias"] = torch.cat([old.input_bias, edits.into[:, -1]])
    state = {name: value for name, value in state.items() if not name.startswith(("edits.", "factors."))}
    rank = merged["experts.0"].shape[1]
    plain = type(layer).from_config(
        {**layer.config(), "rank": [rank]}, device=old.input_weight.device, dtype=old.input_weight.dtype
    )
    plain.load_state_dict({**state, **{f"factors.{name}": value for name, value in merged.items()}})
    return plain.train(layer.training)


@dataclass(frozen=True, slots=True)
class EditVerdict:
    """Whether an edit was kept.

    Attributes:
        kept: True where the rows that the edit is not for did not lose more than the margin.
        decision: The paired comparison on those rows; its gain is the loss before minus the loss after.
    """

    kept: bool
    decision: Decision

    def summary(self) -> str:
        """Return one line for people."""
        low = self.decision.interval[0]
        verb = "kept" if self.kept else "not kept"
        return (
            f"Edit {verb}: the others' loss changes by at most {-low:.4g} (margin {self.decision.margin:g})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"kept": self.kept, "decision": self.decision.to_dict()}


@torch.no_grad()
def keep_if_harmless(
    layer: MultilinearMoE,
    losses: Callable[[], ArrayLike],
    *,
    margin: float,
    dependence: Any = "independent",
    alpha: float = 0.05,
    scale: Mapping[ExpertIndex, float] | None = None,
    weight: Mapping[ExpertIndex, Tensor] | None = None,
    bias: Mapping[ExpertIndex, Tensor] | None = None,
) -> EditVerdict:
    """Make an edit permanent only if it is non-inferior on the rows it is not for.

    Args:
        layer: The layer to edit.
        losses: Called without and with the edit; returns one loss per row of the other groups, (n,).
        margin: Largest mean loss that the others may suffer, in units of the loss.
        dependence: "independent", or one group label per row, as in `metier.compare_paired`.
        alpha: Level of the test.
        scale, weight, bias: The edit, as in `MultilinearMoE.edited`.

    Returns:
        The verdict; without it the layer is as before.

    Example:
        >>> layer = MultilinearMoE(4, 1, n_experts=3, rank=2, rng=0)
        >>> x = torch.randn(50, 4)
        >>> loss = lambda: layer(x).square().squeeze(-1).numpy()
        >>> keep_if_harmless(layer, loss, margin=0.1, scale={0: 1.0}).kept
        True

    Source: ours.
    """
    before = torch.as_tensor(losses()).detach().cpu().numpy().copy()
    with layer.edited(scale=scale, weight=weight, bias=bias):
        after = torch.as_tensor(losses()).detach().cpu().numpy().copy()
    decision = specialize_or_fall_back(after, before, dependence=dependence, alpha=alpha, margin=margin)
    if decision.non_inferior:
        layer.edit_(scale=scale, weight=weight, bias=bias)
    return EditVerdict(kept=decision.non_inferior, decision=decision)

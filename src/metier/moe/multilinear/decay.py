"""Which parameters an optimizer may decay."""

from __future__ import annotations

from typing import Any

from torch import nn

from metier.core.checks import non_negative

from .forms import Form


def decay_groups(model: nn.Module, *, weight_decay: float = 0.1) -> list[dict[str, Any]]:
    """Split a model's parameters for an optimizer: expert factors and vectors are not decayed.

    The usual rule decays every matrix. Expert factors U1, C1 and C start at 1 or at the identity, and decay
    would pull the copies of the common matrix, and with them the layer, towards 0.

    Args:
        model: Any model; frozen parameters are left out, shared ones appear once.
        weight_decay: Decay of the first group.

    Returns:
        Two groups with the keys "params" and "weight_decay", for `torch.optim.AdamW` and its like.

    Raises:
        InputError: The decay is negative.

    Example:
        >>> from metier.moe import MultilinearMoE
        >>> groups = decay_groups(MultilinearMoE(8, 4, n_experts=3, rank=2))
        >>> [[tuple(p.shape) for p in group["params"]] for group in groups]
        [[(3, 8), (2, 8), (4, 2)], [(2,), (3, 2)]]

    Source: ours; the rule for other parameters is that of nanoGPT.
    """
    decay = non_negative("weight_decay", weight_decay)
    experts = {id(p) for form in model.modules() if isinstance(form, Form) for p in form.experts}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.dim() >= 2 and id(parameter) not in experts].append(parameter)
    return [{"params": groups[True], "weight_decay": decay}, {"params": groups[False], "weight_decay": 0.0}]

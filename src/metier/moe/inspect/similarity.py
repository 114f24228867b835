"""How different experts are: inner products, cosines and the dimension of what they span."""

from __future__ import annotations

import torch
from torch import Tensor

from metier.moe.multilinear.edits import flat_index, joint_index
from metier.moe.multilinear.forms import CP, MxD
from metier.moe.multilinear.layer import MultilinearMoE


@torch.no_grad()
def _mixtures(layer: MultilinearMoE) -> Tensor:
    """Return the mixtures of all joint experts, (N, P), in float64."""
    modes = layer.n_experts
    rows = [layer.factors.mixture_of(joint_index(n, modes)).flatten() for n in range(layer.n_joint)]
    mixtures = torch.stack(rows).double()
    if layer.edits is not None:
        for index, factor in layer.edits.scales().items():
            mixtures[flat_index(index, modes)] *= factor
    return mixtures


@torch.no_grad()
def _basis_gram(layer: MultilinearMoE) -> Tensor:
    """Return inner products (P, P) of the matrices that mixtures combine."""
    form = layer.factors
    into = form.input_weight.double()
    if isinstance(form, CP):
        out = form.last_weight.double()
        return (into @ into.T) * (out.T @ out)
    if isinstance(form, MxD):
        return torch.diag(into.square().sum(1))
    like = form.mixture_of((0,) * len(layer.n_experts))
    units = torch.eye(like.numel(), dtype=like.dtype, device=like.device).reshape(-1, *like.shape)
    basis = torch.stack([form.dense(unit)[0].flatten() for unit in units]).double()
    return basis @ basis.T


def expert_gram(layer: MultilinearMoE) -> Tensor:
    """Return inner products <W_n, W_m> of expert weights, (N, N) in float64, without building the experts.

    Biases and additions by edits are left out; scales are in.

    Example:
        >>> layer = MultilinearMoE(6, 4, n_experts=3, rank=2, rng=0)
        >>> gram = expert_gram(layer)
        >>> torch.allclose(gram[0, 1].float(), (layer.expert_weight(0) * layer.expert_weight(1)).sum())
        True

    Source: ours.
    """
    mixtures = _mixtures(layer)
    return mixtures @ _basis_gram(layer) @ mixtures.T


def expert_similarity(layer: MultilinearMoE) -> Tensor:
    """Return cosines between expert weights, (N, N); an expert that is switched off has NaN.

    Example:
        >>> expert_similarity(MultilinearMoE(6, 4, n_experts=3, rank=2)).shape
        torch.Size([3, 3])

    Source: ours.
    """
    gram = expert_gram(layer)
    norms = gram.diagonal().clamp_min(0).sqrt()
    return gram / (norms.unsqueeze(0) * norms.unsqueeze(1))


def span_dimension(layer: MultilinearMoE, *, tolerance: float = 1e-6) -> int:
    """Return the dimension of the space that expert weights span: few dimensions mean few distinct experts.

    Args:
        layer: The layer. At most R for "cp", r_1 r_2 for "tr", whatever N is.
        tolerance: Singular values below this share of the largest do not count.

    Example:
        >>> span_dimension(MultilinearMoE(9, 8, n_experts=64, form="tr", rank=(2, 3, 4), noise=0.5))
        2

    Source: ours. New tensor rings start with diagonal cores, hence 2 and not 2 * 3 above.
    """
    values, vectors = torch.linalg.eigh(_basis_gram(layer))
    root = vectors * values.clamp_min(0).sqrt()
    singular = torch.linalg.svdvals(_mixtures(layer) @ root)
    return int((singular > tolerance * singular.max()).sum())

"""Audit a model's routers without training it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from metier.core import InformationResult
from metier.core.checks import label_codes, positive_int
from metier.moe.attachment.builtin_losses import builtin_losses
from metier.moe.attachment.routers import RouterFamily, find_routers
from metier.moe.balancing.information import routing_information

from .collect import Collected, Record, collect
from .report import Audit, RouterAudit, loads_of, remedy


def audit(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    labels: Any = None,
    families: Iterable[RouterFamily] = (),
    permutations: int = 99,
    information_tokens: int = 20_000,
    rng: int | np.random.Generator = 0,
) -> Audit:
    r"""Say how a model's routers use their experts, and what to do about it, without training.

    Per router: loads f, MaxVio = E max f - 1, dead experts, Gini and entropy; E sum_e f_e p_e, the value of
    a Switch loss (divided by k; 1 at balance), beside the value over all routers pooled, which is what
    transformers' built-in loss sees; and with labels the information I(label; expert), in nats, a choice
    counting 1/k, also given the token id, since words alone tell much of a domain. The null permutes
    the labels of whole sequences.

    Args:
        model: A model that `moe.attach` knows. It is run in evaluation mode and left as it was found.
        batches: Dictionaries of the model's arguments, or its inputs. Padding is read from
            `attention_mask` and left out.
        labels: One label per sequence over all batches, nested by batch or flat; or the name of the
            batches' entry that holds them. None leaves information out.
        families: Router families of your own.
        permutations: Permutations of the null.
        information_tokens: Information is computed on whole sequences of about this many tokens.
        rng: Seed or generator of the permutations.

    Returns:
        The findings, with `summary()`, `to_dict()` and `plot()`.

    Raises:
        InputError: No router is known, there are no batches, labels do not fit, or logits are not finite.

    Example:
        >>> import torch
        >>> from metier import moe
        >>> layer = moe.SparseMoE(8, 16, n_experts=4, top_k=1)
        >>> _ = layer.router.weight.data.zero_()
        >>> found = moe.audit(layer, [torch.randn(32, 8)])
        >>> found.layers[0].max_vio, len(found.layers[0].loads.zero)
        (3.0, 3)
        >>> print(found.layers[0].remedy.split(":")[1].strip())
        moe.attach(model, moe.balancer("phi_bias"))

    Source: ours; MaxVio from arXiv 2408.15664.
    """
    permutations = positive_int("permutations", permutations)
    seen = collect(model, find_routers(model, families), batches, labels)
    codes, levels = (None, []) if seen.labels is None else label_codes("labels", seen.labels)
    known = [
        _Informations(seen, record, codes, permutations, information_tokens, rng) for record in seen.records
    ]
    layers = tuple(
        _router_audit(record, facts, len(levels)) for record, facts in zip(seen.records, known, strict=True)
    )
    return Audit(
        layers=layers,
        builtin_losses=tuple(builtin_losses(model)),
        pooled_value=_pooled(seen.records),
        mean_value=float(np.mean([layer.loads.switch_value for layer in layers])),
        n_batches=seen.n_batches,
        n_sequences=seen.n_sequences,
        labels=tuple(levels),
    )


class _Informations:
    """The informations of one router, on whole sequences up to a number of tokens."""

    def __init__(
        self,
        seen: Collected,
        record: Record,
        codes: NDArray[np.int64] | None,
        permutations: int,
        limit: int,
        rng: int | np.random.Generator,
    ) -> None:
        self.plain: InformationResult | None = None
        self.given: InformationResult | None = None
        self.composition: NDArray[np.float64] | None = None
        if codes is None or not record.tokens:
            return
        rows, choices = np.concatenate(record.rows), np.concatenate(record.choices)
        n_experts = record.router.n_experts
        self.composition = _composition(codes[rows], choices, n_experts)
        # Experts that live elsewhere, under expert parallelism, cannot be told apart.
        few = (choices < n_experts).all(axis=1)
        few &= rows < rows[limit] if rows.size > limit and rows[limit] > rows[0] else True
        token = None
        if seen.token_ids is not None:
            pairs = zip(seen.token_ids, record.places, strict=True)
            token = np.concatenate([ids[place] for ids, place in pairs])[few]
        found = routing_information(
            codes[rows[few]],
            choices[few],
            n_experts=n_experts,
            tokens=token,
            documents=rows[few],
            permutations=permutations,
            rng=rng,
        )
        self.plain, self.given = found.plain, found.given_token


def _composition(codes: NDArray[np.int64], choices: NDArray[np.int64], n_experts: int) -> NDArray[np.float64]:
    table = np.zeros((int(codes.max()) + 1, n_experts))
    inside = choices < n_experts
    np.add.at(table, (np.repeat(codes, choices.shape[1])[inside.reshape(-1)], choices[inside]), 1.0)
    shares: NDArray[np.float64] = table / np.maximum(table.sum(1, keepdims=True), 1.0)
    return shares


def _router_audit(record: Record, facts: _Informations, n_labels: int) -> RouterAudit:
    router = record.router
    loads = loads_of(record.counts, record.gates, router.n_experts)
    composition = facts.composition
    if composition is not None and len(composition) < n_labels:
        composition = np.pad(composition, ((0, n_labels - len(composition)), (0, 0)))
    takes_bias = router.family.select is not None or router.bias_buffer() is not None
    return RouterAudit(
        name=router.name,
        family=router.family.name,
        top_k=router.top_k,
        tokens=record.tokens,
        loads=loads,
        information=facts.plain,
        information_given_token=facts.given,
        composition=composition,
        remedy=remedy(loads, called=bool(record.tokens), takes_bias=takes_bias),
    )


def _pooled(records: list[Record]) -> float | None:
    """Return E sum f p with f and p over all routers together, as transformers' loss pools them, over k."""
    sizes = {(record.router.n_experts, record.router.top_k) for record in records}
    called = [record for record in records if record.counts and record.gates is not None]
    if len(sizes) != 1 or not called:
        return None
    counts = [count for record in called for count in record.counts]
    gates = np.sum([record.gates for record in called if record.gates is not None], axis=0)
    return loads_of(counts, gates, called[0].router.n_experts).switch_value

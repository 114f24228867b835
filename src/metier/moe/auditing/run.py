"""Audit a model's routers without training it: run it, collect what every router decided, and report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metier.core import InformationResult
from metier.core.checks import ensure, label_codes, positive_int
from metier.core.errors import InputError
from metier.moe.attachment.builtin_losses import builtin_losses
from metier.moe.attachment.hooks import MaskReader, uncompiled
from metier.moe.attachment.routers import FoundRouter, RouterFamily, find_routers
from metier.moe.balancing.calls import gate_probabilities
from metier.moe.measures.information import routing_information
from metier.moe.multilinear.evaluation import arguments_of, evaluating

from .report import Audit, RouterAudit, loads_of, remedy


@dataclass(slots=True)
class Record:
    """What one router decided.

    Attributes:
        router: The router.
        counts: Choices of every batch, one array (E,) each.
        gates: Sum of the gate values over the tokens, (E,).
        choices: Experts of the kept tokens, arrays (n, k).
        rows: Sequence of each kept token, arrays (n,).
        places: Place of each kept token among the tokens of its batch, arrays (n,).
    """

    router: FoundRouter
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    gates: NDArray[np.float64] | None = None
    choices: list[NDArray[np.int64]] = field(default_factory=list)
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    places: list[NDArray[np.int64]] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens that count."""
        return sum(len(choice) for choice in self.choices)


def collect(
    model: nn.Module, routers: list[FoundRouter], batches: Iterable[Any], labels: Any = None
) -> Collected:
    """Run every batch in evaluation mode without gradient; the model is left as it was found.

    Raises:
        InputError: There are no batches, or labels and sequences differ in number.
    """
    collected = Collected(model, [Record(router) for router in routers], labels)
    handles = collected.masks.watch(model, [router.module for router in routers])
    handles += [
        record.router.module.register_forward_hook(collected.hook(record)) for record in collected.records
    ]
    try:
        with evaluating(model), torch.no_grad():
            for batch in batches:
                collected.run(batch)
    finally:
        for handle in handles:
            handle.remove()
    ensure(
        collected.n_batches > 0,
        "an audit needs batches",
        expected="at least one batch",
        got="none",
        next_step="Pass a list of batches; a generator that was used up is empty.",
    )
    ensure(
        collected.labels is None or len(collected.labels) == collected.n_sequences,
        "labels has one entry per sequence",
        expected=f"{collected.n_sequences} labels",
        got=lambda: len(collected.labels or ()),
        next_step="Pass one label for each row of the batches, in their order.",
    )
    return collected


class Collected:
    """What all routers decided, and what the tokens were.

    Attributes:
        records: One per router.
        token_ids: Token ids of every batch, flat, or None where the batches have none.
        n_sequences: Sequences in all batches.
        n_batches: Batches.
        labels: Label of every sequence, or None.
    """

    def __init__(self, model: nn.Module, records: list[Record], labels: Any) -> None:
        self.model, self.records, self.masks = model, records, MaskReader()
        self.key = labels if isinstance(labels, str) else None
        self.labels = [] if self.key is not None else _flat_labels(labels)
        self.token_ids: list[NDArray[np.int64]] | None = []
        self.n_batches = self.n_sequences = self.size = 0

    def run(self, batch: Any) -> None:
        """Run one batch."""
        args, kwargs = arguments_of(batch)
        if self.key is not None:
            self.labels = [*(self.labels or ()), *(_flat_labels(_pop(kwargs, self.key)) or ())]
        args, kwargs = _on_device(self.model, args), _on_device(self.model, kwargs)
        self.size = _n_sequences(args, kwargs)
        ids = kwargs.get("input_ids", args[0] if args else None)
        if isinstance(ids, Tensor) and not ids.is_floating_point() and self.token_ids is not None:
            self.token_ids.append(ids.reshape(-1).cpu().numpy())
        else:
            self.token_ids = None
        self.model(*args, **kwargs)
        self.masks.forget()
        self.n_sequences += self.size
        self.n_batches += 1

    def hook(self, record: Record) -> Any:
        """Return the forward hook of one router."""

        @uncompiled
        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            logits, _, indices = record.router.family.read(output)
            self.add(record, logits, indices.reshape(logits.shape[0], -1))

        return keep

    def add(self, record: Record, logits: Tensor, indices: Tensor) -> None:
        """Count one router call."""
        n_tokens, n_experts = logits.shape
        mask = self.masks.mask_of(record.router.name, logits, repeated=False)
        place = torch.arange(n_tokens, device=logits.device)
        if mask is not None:
            logits, indices, place = logits[mask], indices[mask], place[mask]
        ensure(
            bool(torch.isfinite(logits).all()),
            "router logits are finite",
            expected="no NaN and no infinity",
            got=f"such a value at router {record.router.name!r} in batch {self.n_batches}",
            next_step="Look at this batch: the model itself fails on it.",
        )
        gates = gate_probabilities(logits.double(), record.router.gating).sum(0).cpu().numpy()
        chosen = indices.reshape(-1)
        counts = torch.bincount(chosen[chosen < n_experts], minlength=n_experts).cpu().numpy()
        record.counts.append(counts)
        record.gates = gates if record.gates is None else record.gates + gates
        record.choices.append(indices.cpu().numpy())
        record.places.append(place.cpu().numpy())
        per_sequence = max(1, n_tokens // max(1, self.size))
        record.rows.append(self.n_sequences + (place // per_sequence).cpu().numpy())


def _pop(kwargs: dict[str, Any], key: str) -> Any:
    ensure(
        key in kwargs,
        "labels names an entry of every batch",
        expected=f"one of {sorted(kwargs)}",
        got=repr(key),
        next_step="Pass the key of the labels, or a list with one label per sequence.",
    )
    return kwargs.pop(key)


def _on_device(model: nn.Module, values: Any) -> Any:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if isinstance(values, dict):
        return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in values.items()}
    return tuple(v.to(device) if isinstance(v, Tensor) else v for v in values)


def _n_sequences(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    given = [kwargs[name] for name in ("input_ids", "inputs_embeds") if name in kwargs]
    for value in (*given, *args, *kwargs.values()):
        if isinstance(value, Tensor) and value.dim():
            return int(value.shape[0])
    raise InputError(
        "a batch holds tensors",
        expected="a dictionary of the model's arguments, or its inputs",
        got=f"arguments of types {[type(v).__name__ for v in (*args, *kwargs.values())]}",
        next_step="Pass what you would call the model with.",
    )


def _flat_labels(labels: Any) -> list[Any] | None:
    if labels is None:
        return None
    flat: list[Any] = []
    for entry in labels.tolist() if isinstance(labels, Tensor | np.ndarray) else labels:
        nested = isinstance(entry, list | tuple | Tensor | np.ndarray) and np.ndim(entry) > 0
        flat += list(entry.tolist() if hasattr(entry, "tolist") else entry) if nested else [entry]
    return [entry.item() if isinstance(entry, Tensor | np.generic) else entry for entry in flat]


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
    collected = collect(model, find_routers(model, families), batches, labels)
    codes, levels = (None, []) if collected.labels is None else label_codes("labels", collected.labels)
    known = [
        _Informations(collected, record, codes, permutations, information_tokens, rng)
        for record in collected.records
    ]
    layers = tuple(
        _router_audit(record, facts, len(levels))
        for record, facts in zip(collected.records, known, strict=True)
    )
    return Audit(
        layers=layers,
        builtin_losses=tuple(builtin_losses(model)),
        pooled_value=_pooled(collected.records),
        mean_value=float(np.mean([layer.loads.switch_value for layer in layers])),
        n_batches=collected.n_batches,
        n_sequences=collected.n_sequences,
        labels=tuple(levels),
    )


class _Informations:
    """The informations of one router, on whole sequences up to a number of tokens."""

    def __init__(
        self,
        collected: Collected,
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
        if collected.token_ids is not None:
            pairs = zip(collected.token_ids, record.places, strict=True)
            token = np.concatenate([ids[place] for ids, place in pairs])[few]
        information = routing_information(
            codes[rows[few]],
            choices[few],
            n_experts=n_experts,
            tokens=token,
            documents=rows[few],
            permutations=permutations,
            rng=rng,
        )
        self.plain, self.given = information.plain, information.given_token


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

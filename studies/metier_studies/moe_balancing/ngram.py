"""An interpolated n-gram model of bytes, tuned: what a language model has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier_studies.moe_balancing.corpus import VOCABULARY, Tokens

Floats = NDArray[np.float64]
ORDERS = (3, 4, 5, 6, 7)
DISCOUNTS = (0.5, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """For n-grams of one length: sorted keys of contexts and of n-grams with their counts."""

    grams: Tokens
    gram_counts: Floats
    contexts: Tokens
    context_counts: Floats
    context_types: Floats


def count(rows: Sequence[Tokens], order: int) -> Counts:
    """Count the n-grams of `order` bytes in all rows, none across two rows; at most 7 fit into a key."""
    keys = np.concatenate([_keys(row, order) for row in rows])
    grams, gram_counts = np.unique(keys, return_counts=True)
    contexts, first, types = np.unique(grams // VOCABULARY, return_index=True, return_counts=True)
    totals = np.add.reduceat(gram_counts, first)
    return Counts(grams, gram_counts.astype(float), contexts, totals.astype(float), types.astype(float))


def _keys(row: Tokens, order: int) -> Tokens:
    """The n-grams that end at positions order - 1, order, ... as base-256 numbers."""
    keys = np.zeros(row.size - order + 1, dtype=np.int64)
    for offset in range(order):
        keys = keys * VOCABULARY + row[offset : row.size - order + 1 + offset]
    return keys


def probabilities(tables: Sequence[Counts], windows: Tokens, *, discount: float) -> Floats:
    """Probability of every byte of (W, T + 1) windows after the first, by interpolated discounting.

    `p_n(w | h) = max(c(hw) - d, 0) / c(h) + d T(h) / c(h) p_{n-1}(w | h')`, T(h) the kinds of bytes seen
    after h, d the discount; an unseen h leaves `p_{n-1}`. The start of a window uses what contexts it has.

    Args:
        tables: `count` of orders 1, 2, ..., n.
        windows: bytes.
        discount: d.
    """
    p = np.full((windows.shape[0], windows.shape[1] - 1), 1.0 / VOCABULARY)
    for order, table in enumerate(tables, start=1):
        skip = max(order - 2, 0)
        keys = np.stack([_keys(row, order) for row in windows])[:, (1 if order == 1 else 0) :]
        seen = _lookup(table.grams, table.gram_counts, keys)
        context = keys // VOCABULARY
        total = _lookup(table.contexts, table.context_counts, context)
        types = _lookup(table.contexts, table.context_types, context)
        lower = p[:, skip:]
        known = np.maximum(total, 1.0)
        mixed = np.maximum(seen - discount, 0.0) / known + discount * types / known * lower
        p[:, skip:] = np.where(total > 0, mixed, lower)
    return p


def _lookup(keys: Tokens, values: Floats, wanted: Tokens) -> Floats:
    place = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return np.where(keys[place] == wanted, values[place], 0.0)


def tuned_ngram(train: Sequence[Tokens], tune: Tokens, val: Tokens) -> dict[str, float]:
    """Fit all orders and discounts, choose on `tune`, report nats per byte on `val`.

    Args:
        train: rows of bytes.
        tune, val: (W, T + 1) windows.
    """
    tables = [count(train, order) for order in range(1, max(ORDERS) + 1)]
    tried = {
        (order, discount): _loss(tables[:order], tune, discount) for order in ORDERS for discount in DISCOUNTS
    }
    order, discount = min(tried, key=lambda key: tried[key])
    return {
        "order": order,
        "discount": discount,
        "tune": tried[order, discount],
        "val": _loss(tables[:order], val, discount),
    }


def _loss(tables: Sequence[Counts], windows: Tokens, discount: float) -> float:
    return float(-np.log(probabilities(tables, windows, discount=discount)).mean())

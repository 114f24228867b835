"""How much the choice of experts tells about a label: a document's domain, a class, a language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InformationResult, entropy, information
from metier.core.checks import ensure, label_codes, positive_int


@dataclass(frozen=True, slots=True)
class RoutingInformation:
    """Information between labels and experts, in nats, beside what chance gives.

    Attributes:
        plain: I(label; expert).
        given_token: I(label; expert | token id), or None without token ids. Domains differ in vocabulary,
            so a router that reads the token alone already has `plain` information; this is what is beyond.
        label_entropy: H(label).

    Example:
        >>> r = routing_information(["a", "b"] * 20, [[0], [1]] * 20, n_experts=2)
        >>> round(r.share, 6)
        1.0
    """

    plain: InformationResult
    given_token: InformationResult | None
    label_entropy: float

    @property
    def share(self) -> float:
        """I(label; expert) / H(label); nan where there is one label only."""
        return self.plain.value / self.label_entropy if self.label_entropy > 0 else float("nan")

    def summary(self) -> str:
        """Return one or two lines for people."""
        line = f"label and expert: {self.plain.summary()}; {self.share:.1%} of H(label)"
        return line if self.given_token is None else f"{line}\ngiven the token: {self.given_token.summary()}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {
            "plain": self.plain.to_dict(),
            "given_token": None if self.given_token is None else self.given_token.to_dict(),
            "label_entropy": self.label_entropy,
            "share": self.share,
        }


def routing_information(
    labels: Any,
    indices: Any,
    *,
    n_experts: int,
    tokens: Any = None,
    documents: Any = None,
    permutations: int = 199,
    rng: int | np.random.Generator = 0,
) -> RoutingInformation:
    r"""Say how much a layer's choices tell about labels, with the null that permutes whole documents.

    Plug-in I from the joint counts, each of a token's k choices with weight 1/k. Tokens of a document are not
    independent, so the null permutes labels over documents; without `documents` over tokens, which is too
    optimistic for text.

    Args:
        labels: One label per token, (N,).
        indices: Chosen experts, (N, k) or (N,).
        n_experts: E.
        tokens: Token ids, (N,), to condition on.
        documents: The document of each token, (N,); a document has one label.
        permutations: Number of permutations.
        rng: Seed or generator.

    Returns:
        The information, plain and given the token, in nats.

    Raises:
        InputError: Lengths differ, an id is out of range, or a document has two labels (it is named).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> r = routing_information(["a", "b"] * 100, rng.integers(0, 4, 200), n_experts=4)
        >>> bool(r.plain.p_value > 0.05)
        True
    """
    weights = choice_weights(indices, positive_int("n_experts", n_experts, minimum=2))
    codes, names = label_codes("labels", _numpy(labels))
    shares = np.bincount(codes, minlength=len(names)) / codes.size
    common = {"groups": _numpy(documents), "permutations": permutations, "rng": rng}
    plain = information(codes, weights, **common)
    given = None if tokens is None else information(codes, weights, given=_numpy(tokens), **common)
    return RoutingInformation(plain, given, float(entropy(shares)))


def composition(labels: Any, indices: Any, *, n_experts: int) -> tuple[list[Any], NDArray[np.float64]]:
    """Return the distinct labels, and how often the tokens of each chose each expert, (labels, E).

    Args:
        labels: One label per token, (N,).
        indices: Chosen experts, (N, k) or (N,).
        n_experts: E.

    Returns:
        Labels in sorted order, and the table of counts; a token counts 1, each of its k choices 1/k.

    Example:
        >>> composition(["law", "code", "law"], [[0], [1], [0]], n_experts=2)[1].tolist()
        [[0.0, 1.0], [2.0, 0.0]]
    """
    weights = choice_weights(indices, positive_int("n_experts", n_experts, minimum=2))
    codes, names = label_codes("labels", _numpy(labels))
    ensure(
        codes.size == weights.shape[0],
        "labels and indices describe the same tokens",
        expected=f"{weights.shape[0]} labels",
        got=codes.size,
        next_step="Pass one label per token.",
    )
    table = np.zeros((len(names), n_experts))
    np.add.at(table, codes, weights)
    return names, table


def choice_weights(indices: Any, n_experts: int) -> NDArray[np.float32]:
    """Return weights (N, E), 1/k at each of a token's k choices.

    Example:
        >>> choice_weights([[0, 2]], 3).tolist()
        [[0.5, 0.0, 0.5]]
    """
    ids = np.asarray(_numpy(indices))
    ids = ids[:, None] if ids.ndim == 1 else ids
    ensure(
        ids.ndim == 2 and 0 not in ids.shape and ids.dtype.kind in "iu",
        "indices are chosen experts",
        expected="integers of shape (tokens, k)",
        got=f"{ids.dtype} of shape {ids.shape}",
        next_step="Pass the indices that the router returned.",
    )
    ensure(
        ids.min() >= 0 and ids.max() < n_experts,
        "indices are experts of this layer",
        expected=f"0 .. {n_experts - 1}",
        got=f"{ids.min()} .. {ids.max()}",
        next_step="Pass the layer's n_experts.",
    )
    weights = np.zeros((ids.shape[0], n_experts), dtype=np.float32)
    np.add.at(weights, (np.arange(ids.shape[0])[:, None], ids), np.float32(1.0 / ids.shape[1]))
    return weights


def _numpy(values: Any) -> Any:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values

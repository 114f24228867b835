"""Text of several domains as bytes, divided into training, tuning and validation documents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier import data
from metier.core import InputError

Tokens = NDArray[np.int64]
VOCABULARY = 256
SPLITS = ("train", "tune", "val")
SHARES = (0.76, 0.12, 0.12)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Documents of one split as one row of bytes per domain.

    Args:
        tokens: bytes of every domain.
        documents: document of every byte, numbered across domains.
    """

    tokens: tuple[Tokens, ...]
    documents: tuple[Tokens, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """All splits of all domains.

    Args:
        domains: names.
        splits: by name.
        sha256: digest of each domain's documents.
        provenance: of each domain.
    """

    domains: tuple[str, ...]
    splits: dict[str, Split]
    sha256: tuple[str, ...]
    provenance: tuple[str, ...]

    @property
    def n_domains(self) -> int:
        """D."""
        return len(self.domains)


def load_corpus(domains: Sequence[str], *, characters: int, rng: np.random.Generator) -> Corpus:
    """Read the domains, keep about `characters` of each, and deal whole documents to the splits.

    Args:
        domains: names of `metier.data.text_names()`, at least two.
        characters: kept per domain; longer documents are cut to a fortieth of it.
        rng: draws which documents, and which split each goes to.
    """
    if len(domains) < 2:
        raise InputError(
            "a study of domains needs several",
            expected="two domains or more",
            got=", ".join(domains) or "none",
            next_step="Name more of " + ", ".join(data.text_names()) + ".",
        )
    parts: dict[str, list[tuple[Tokens, Tokens]]] = {split: [] for split in SPLITS}
    digests, provenance, number = [], [], 0
    for name in domains:
        corpus = data.load_texts(name)
        dealt = _deal(corpus.documents, characters, rng)
        for split, documents in dealt.items():
            rows = [np.frombuffer(text, dtype=np.uint8).astype(np.int64) for text in documents]
            labels = [np.full(row.size, number + i, dtype=np.int64) for i, row in enumerate(rows)]
            number += len(rows)
            parts[split].append((np.concatenate(rows), np.concatenate(labels)))
        kept = b"\0".join(text for documents in dealt.values() for text in documents)
        digests.append(hashlib.sha256(kept).hexdigest())
        provenance.append(corpus.provenance)
    splits = {
        name: Split(tuple(t for t, _ in rows), tuple(d for _, d in rows)) for name, rows in parts.items()
    }
    return Corpus(tuple(domains), splits, tuple(digests), tuple(provenance))


def _deal(documents: Sequence[str], characters: int, rng: np.random.Generator) -> dict[str, list[bytes]]:
    """Documents in random order until their length is reached, each to the split that lacks most."""
    longest = characters // 40
    pieces = [document.encode("utf-8", errors="replace")[:longest] for document in documents]
    dealt: dict[str, list[bytes]] = {split: [] for split in SPLITS}
    filled = dict.fromkeys(SPLITS, 0.0)
    for i in rng.permutation(len(pieces)):
        if sum(filled.values()) >= characters:
            break
        wanted = {s: share * characters - filled[s] for s, share in zip(SPLITS, SHARES, strict=True)}
        split = max(wanted, key=lambda s: wanted[s] / SHARES[SPLITS.index(s)])
        dealt[split].append(pieces[i])
        filled[split] += len(pieces[i])
    return dealt


def batches(
    split: Split, *, rows: int, length: int, steps: int, pure: bool, rng: np.random.Generator
) -> Iterator[tuple[Tokens, Tokens]]:
    """Yield `steps` batches of (rows, length + 1) windows and the domain of each row.

    Args:
        split: where windows are drawn, every domain alike.
        rows, length: windows and their tokens.
        steps: batches.
        pure: whether all windows of a batch come from one domain, the domains in random order.
        rng: draws domains and windows.
    """
    n_domains = len(split.tokens)
    for _ in range(steps):
        drawn = rng.integers(n_domains, size=1 if pure else rows)
        domains = np.broadcast_to(drawn, (rows,))
        starts = [int(rng.integers(split.tokens[d].size - length)) for d in domains]
        windows = [split.tokens[d][s : s + length + 1] for d, s in zip(domains, starts, strict=True)]
        yield np.stack(windows), domains.astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows to evaluate on: (W, length + 1) bytes, the domain and the document of each."""

    tokens: Tokens
    domains: Tokens
    documents: Tokens


def evaluation_windows(split: Split, *, length: int, per_domain: int) -> Windows:
    """Evenly spaced windows of every domain, none crossing into another document."""
    tokens, domains, documents = [], [], []
    for domain, (row, labels) in enumerate(zip(split.tokens, split.documents, strict=True)):
        starts = [s for s in range(0, row.size - length - 1, length) if labels[s] == labels[s + length]]
        picked = np.linspace(0, len(starts) - 1, min(per_domain, len(starts))).astype(int)
        for start in (starts[i] for i in picked):
            tokens.append(row[start : start + length + 1])
            domains.append(domain)
            documents.append(int(labels[start]))
    return Windows(np.stack(tokens), np.array(domains), np.array(documents))

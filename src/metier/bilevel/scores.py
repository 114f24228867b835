"""The orthogonal score: general losses, the quadratic case, two samples, the debiased objective."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arrays import Floats, added
from .losses import Derivatives


@dataclass(frozen=True, slots=True)
class Nuisances:
    """The four regressions at n rows.

    Attributes:
        h: Inner solution, (n, q).
        adjoint: a, (n, q).
        jacobian: J = d_w h, (n, d, q).
        adjoint_jacobian: A2 = d_w a, (n, d, q).

    Example:
        >>> Nuisances(*(np.zeros(s) for s in [(4, 1), (4, 1), (4, 3, 1), (4, 3, 1)])).jacobian.shape
        (4, 3, 1)
    """

    h: Floats
    adjoint: Floats
    jacobian: Floats
    adjoint_jacobian: Floats


def _dot(matrix: Floats | None, vector: Floats) -> Floats | None:
    """(n, d, q) times (n, q), where None stands for zero."""
    return None if matrix is None else np.einsum("ndq,nq->nd", matrix, vector)


def outer_scores(outer: Derivatives, nuisances: Nuisances) -> Floats:
    """Return phi_out = d_w l_out + J d_v l_out, (n, d): also the plug-in score."""
    out: Floats = np.einsum("ndq,nq->nd", nuisances.jacobian, outer.d_v)
    return out if outer.d_w is None else out + outer.d_w


def inner_scores(inner: Derivatives, nuisances: Nuisances) -> Floats:
    """Return phi_in = d2_wv l_in a + J d2_v l_in a + A2 d_v l_in, (n, d)."""
    curved = np.einsum("nqp,np->nq", inner.d2_v, nuisances.adjoint)
    out: Floats = np.einsum("ndq,nq->nd", nuisances.jacobian, curved)
    out += np.einsum("ndq,nq->nd", nuisances.adjoint_jacobian, inner.d_v)
    moved = _dot(inner.d2_wv, nuisances.adjoint)
    return out if moved is None else out + moved


def orthogonal_scores(inner: Derivatives, outer: Derivatives, nuisances: Nuisances) -> Floats:
    r"""Return phi, (n, d): the uncentered efficient influence function of grad F(w).

    phi = d_w l_out + d2_wv l_in a + J (d2_v l_in a + d_v l_out) + A2 d_v l_in.

    Args:
        inner: Derivatives of l_in at h.
        outer: Derivatives of l_out at h.
        nuisances: h, a, J, A2 at the rows.

    Returns:
        (n, d).

    Source: derived; for squared losses the authors' score.
    """
    return outer_scores(outer, nuisances) + inner_scores(inner, nuisances)


def inner_adjoint_terms(inner: Derivatives, adjoint: Floats, jacobian: Floats) -> Floats | None:
    """Return d_v(d2_wv l_in a) + J d3_v l_in[a], (n, d, q), or None where it is zero.

    With `outer_adjoint_terms` this is M, whose regression gives A2 = -M H^-1.
    """
    within = None if inner.d3_wvv is None else np.einsum("ndqp,np->ndq", inner.d3_wvv, adjoint)
    if inner.d3_v is not None:
        bent = np.einsum("nqpr,nr->nqp", inner.d3_v, adjoint)
        within = added(within, np.einsum("ndp,npq->ndq", jacobian, bent))
    return within


def outer_adjoint_terms(outer: Derivatives, jacobian: Floats) -> Floats:
    """Return d2_wv l_out + J d2_v l_out, (n, d, q)."""
    bent: Floats = np.einsum("ndp,npq->ndq", jacobian, outer.d2_v)
    return bent if outer.d2_wv is None else bent + outer.d2_wv


def objective_scores(inner: Derivatives, outer: Derivatives, adjoint: Floats) -> Floats:
    """Return m_F = l_out + a' d_v l_in, (n,): the orthogonal score of F(w) itself."""
    return np.asarray(outer.value + np.einsum("nq,nq->n", adjoint, inner.d_v))


def quadratic_scores(g: Floats, dg: Floats, y: Floats, jacobian: Floats, residual: Floats) -> Floats:
    """Return (g - y) j + (dg - j) r, (n, d): the score of squared losses.

    Args:
        g, y, residual: (n,); residual is r = E[g - y | X].
        dg, jacobian: (n, d).

    Example:
        >>> one = np.ones(1)
        >>> quadratic_scores(3 * one, 2 * one[:, None], one, one[:, None], 0.5 * one).item()
        2.5

    Source: the paper, Section 4 and the authors' code.
    """
    return (g - y)[:, None] * jacobian + (dg - jacobian) * residual[:, None]

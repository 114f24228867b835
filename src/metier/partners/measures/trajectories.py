"""Information between a partner and its whole trajectory, from the policies' own log-probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core import Estimate, InputError, finite_array, simplex_rows
from metier.core.checks import as_numbers

from .table import draw_weights


def trajectory_information(log_probs: ArrayLike, *, weights: Any = None, level: float = 0.95) -> Estimate:
    r"""Information I(partner; trajectory) without a classifier, unbiased, in nats.

    With l_j(tau) = sum over time and seats of log pi_j(a_t | history), what the game contributes cancels in
    the posterior, so I = H(w) + E_{i ~ w, tau ~ pi_i} log softmax_i(log w + l(tau)). It bounds the
    information in any behaviour computed from the trajectory.

    Args:
        log_probs: l, shape (partners, episodes, partners): entry [i, e, j] is the log-probability that
            partner j gives to the actions of episode e, which partner i played. -inf is allowed for j != i.
        weights: Draw weights w, shape (partners,); None is uniform.
        level: Coverage of the interval.

    Returns:
        An `Estimate` with its standard error over episodes, stratified by partner.

    Raises:
        InputError: A wrong shape, NaN or +inf, or an episode that its own partner could not have played.

    Example:
        >>> import numpy as np
        >>> told_apart = np.log(np.full((2, 4, 2), 1e-12))
        >>> told_apart[0, :, 0] = told_apart[1, :, 1] = 0.0
        >>> round(trajectory_information(told_apart).value, 4)
        0.6931

    Source: ours (derived); the identity is the exact posterior in Barber and Agakov's bound.
    """
    values = _checked(as_numbers("log_probs", log_probs))
    w = draw_weights(weights, len(values))
    drawn = np.flatnonzero(w > 0)
    joint = values[:, :, drawn] + np.log(w[drawn])
    top = joint.max(axis=2, keepdims=True)
    total = top[..., 0] + np.log(np.exp(joint - top).sum(axis=2))
    own = np.stack([values[i, :, i] - total[i] for i in drawn])
    n = own.shape[1]
    stderr = np.sqrt(np.sum(w[drawn] ** 2 * own.var(axis=1, ddof=1) / n)) if n > 1 else np.nan
    # H(w) cancels the log w_i of the posterior: I = sum_i w_i E[l_i - log sum_j w_j exp l_j].
    return Estimate.from_stderr(
        float(w[drawn] @ own.mean(axis=1)),
        float(stderr),
        n=int(own.size),
        level=level,
        method="exact posterior",
    )


def latent_log_prob(log_probs: ArrayLike, *, axis: int = -1, prior: ArrayLike | None = None) -> Any:
    """Sum a private latent out: log sum_z p(z) exp(l_z), per seat, before seats are added.

    Args:
        log_probs: l_z, the summed log-probabilities of one seat's actions under each latent along `axis`.
        axis: The axis of the latents.
        prior: p(z); None is uniform.

    Returns:
        The log-probability of the seat's actions, with `axis` removed.

    Raises:
        InputError: No such axis, NaN or +inf, or a prior off the simplex or of another length.

    Example:
        >>> round(float(latent_log_prob([0.0, -1e9])), 4)
        -0.6931
    """
    values = _latents_last(as_numbers("log_probs", log_probs), axis)
    p = _prior(prior, values.shape[-1])
    drawn = np.flatnonzero(p > 0)
    joint = values[..., drawn] + np.log(p[drawn])
    top = np.maximum(joint.max(axis=-1, keepdims=True), np.finfo(np.float64).min)
    with np.errstate(divide="ignore"):
        return top[..., 0] + np.log(np.exp(joint - top).sum(axis=-1))


def _latents_last(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    if not isinstance(axis, int) or not -values.ndim <= axis < values.ndim or not values.size:
        raise InputError(
            "log_probs has an axis of latents",
            expected="at least one latent along `axis`",
            got=f"axis={axis!r} of shape {values.shape}",
            next_step="Pass the axis along which the latents lie; -1 is the last.",
        )
    if np.isnan(values).any() or np.isposinf(values).any():
        raise InputError(
            "log_probs are logarithms of probabilities",
            expected="numbers or -inf",
            got="NaN or +inf",
            next_step="Look at that policy's output under each latent.",
        )
    return np.asarray(np.moveaxis(values, axis, -1))


def _prior(prior: Any, n_latents: int) -> NDArray[np.float64]:
    if prior is None:
        return np.full(n_latents, 1.0 / n_latents)
    row = np.asarray(simplex_rows("prior", finite_array("prior", prior, ndim=1)[None]), np.float64)[0]
    if row.size != n_latents:
        raise InputError(
            "prior has one probability per latent",
            expected=f"{n_latents} probabilities",
            got=f"{row.size}",
            next_step="Pass prior=None for uniform latents.",
        )
    return np.asarray(row)


def _checked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if values.ndim != 3 or values.shape[0] != values.shape[2] or not values.size:
        raise InputError(
            "log_probs holds every partner's view of every partner's episodes",
            expected="shape (partners, episodes, partners)",
            got=f"shape {values.shape}",
            next_step="Score each episode under all partners, those who did not play it too.",
        )
    if np.isnan(values).any() or np.isposinf(values).any():
        i, e, j = (int(k) for k in np.argwhere(np.isnan(values) | np.isposinf(values))[0])
        raise InputError(
            "log_probs are logarithms of probabilities",
            expected="numbers or -inf",
            got=f"{values[i, e, j]} for episode {e} of partner {i} under partner {j}",
            next_step="Look at that policy's output there.",
        )
    own = np.diagonal(values, axis1=0, axis2=2)
    if np.isneginf(own).any():
        e, i = (int(k) for k in np.argwhere(np.isneginf(own))[0])
        raise InputError(
            "a partner gives its own episodes a probability above 0",
            expected="a finite log-probability",
            got=f"-inf for episode {e} of partner {i} under itself",
            next_step="Check that episodes and policies are in the same order.",
        )
    return values

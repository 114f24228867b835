"""The overlap function as its formula reads, by dense grids and by nested adaptive quadrature."""

import itertools
import math

import numpy as np
from scipy.integrate import quad, quad_vec, simpson


def density(x, mean=0.0, sd=1.0):
    """Of the normal law."""
    return np.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))


def dense_z(kinks, low, high, per_unit=30):
    """Grids between neighboring kinks."""
    ends = [low, *sorted(k for k in kinks if low < k < high), high]
    return [np.linspace(a, b, 2 * max(int(per_unit * (b - a)), 16) + 1) for a, b in itertools.pairwise(ends)]


def overlap_on_grids(sigma, q, snr, *, kinks=(), n_fields=121, y_step=0.1):
    """F(q) = E_V int N^2/Z dy with Simpson in z, sums in y and V."""
    sd, scale = np.sqrt(1 - q), np.sqrt(snr)
    V = np.linspace(-7, 7, n_fields)
    total = 0.0
    for v in V:
        omega = np.sqrt(q) * v
        grids = [
            (z + 1e-13 * np.sign(z.mean() - z)) for z in dense_z(kinks, omega - 7.5 * sd, omega + 7.5 * sd)
        ]
        signals = scale * np.concatenate([sigma(z) for z in grids])
        y = np.arange(signals.min() - 7, signals.max() + 7, y_step)
        Z, N = np.zeros(y.size), np.zeros(y.size)
        for z in grids:
            both = density(z, omega, sd) * density(y[:, None] - scale * sigma(z))
            Z += simpson(both, x=z, axis=1)
            N += simpson(both * (z - omega) / (1 - q), x=z, axis=1)
        total += density(v) * np.sum(N * N / np.maximum(Z, 1e-200)) * y_step
    return total * (V[1] - V[0])


def onset_by_quadrature(sigma, snr, *, kinks=(), tolerance=1e-10):
    """E_y[(E[z^2 - 1 | y])^2] by nested adaptive quadrature."""
    scale = np.sqrt(snr)
    signals = scale * sigma(np.linspace(-7, 7, 401))
    ends = [-9.0, *kinks, 9.0]

    def information(y):
        def both(t):
            likelihood = density(y - scale * sigma(t)) * density(t)
            return np.array([likelihood, likelihood * (t * t - 1)])

        pieces = itertools.pairwise(ends)
        Z, N = sum(quad_vec(both, a, b, epsrel=tolerance / 10, epsabs=1e-16)[0] for a, b in pieces)
        return N * N / Z if Z > 1e-200 else 0.0

    return quad(information, signals.min() - 8, signals.max() + 8, epsrel=tolerance, limit=400)[0]

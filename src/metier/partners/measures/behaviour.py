"""Diversity, specialization and information of a population's behaviour, with what sampling does to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from metier.core import entropy, one_of, positive_int

from .sampling import bias_of_plug_in, independence_p_value, standard_errors
from .table import BehaviourTable, behaviour_table

CORRECTIONS = ("miller_madow", "none")


@dataclass(frozen=True, slots=True)
class BehaviourInformation:
    """How differently partners behave (D), how decided each is (S), how much behaviour tells who it was (I).

    Attributes:
        diversity: D = H(m), nats; m is the population's behaviour.
        specialization: S = -sum_i w_i H(P_i), nats, at most 0.
        information: I = D + S, nats: I(behaviour; partner).
        stderr: Standard errors by "diversity", "specialization", "information"; 0 for exact probabilities.
        p_value: For I = 0, by permuting episodes over partners; None for exact probabilities.
        effective_partners: exp(I), the number of partners that could be told apart without error.
        bias: What the correction took off each plug-in value; 0 without correction.
        n_partners: Number of partners.
        n_behaviours: Number of columns, the failure symbol included.
        episodes: Episodes counted in all; None for exact probabilities.
    """

    diversity: float
    specialization: float
    information: float
    stderr: dict[str, float]
    p_value: float | None
    effective_partners: float
    bias: dict[str, float]
    n_partners: int
    n_behaviours: int
    episodes: int | None

    def summary(self) -> str:
        """Return one line for people."""
        parts = [
            f"{letter} {getattr(self, name):.3g}" + (f" ± {self.stderr[name]:.2g}" if self.episodes else "")
            for letter, name in (("D", "diversity"), ("S", "specialization"), ("I", "information"))
        ]
        chance = "" if self.p_value is None else f" (p = {self.p_value:.3g})"
        apart = f"{self.effective_partners:.3g} of {self.n_partners} partners told apart"
        return f"{', '.join(parts)} nats: {apart}{chance}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def behaviour_information(
    probabilities: Any = None,
    *,
    counts: Any = None,
    weights: Any = None,
    undefined: str = "drop",
    correction: str = "miller_madow",
    failures: Any = None,
    permutations: int = 999,
    rng: int | np.random.Generator = 0,
) -> BehaviourInformation:
    r"""Diversity, specialization and information of the behaviours of a population of partners.

    With P_i the distribution of the behaviour X of partner i, w the draw weights and m = sum_i w_i P_i:
    D = H(m), S = -sum_i w_i H(P_i), and I(X; partner) = D + S = sum_i w_i KL(P_i || m). D alone can be had
    by partners that each do everything; I cannot.

    Counts give plug-in values that are biased: S upward by sum_i w_i (K_i - 1) / (2 n_i), with K_i behaviours
    seen in n_i episodes, and D downward by (1/2) sum_x Var(m_x) / m_x. Both are corrected by default, so that
    a corrected value may leave the plug-in's bounds by a little.

    Args:
        probabilities: P, shape (partners, behaviours), where it is known exactly; rows sum to 1.
        counts: Episodes by behaviour, shape (partners, behaviours), where it was counted.
        weights: Draw weights of the partners, shape (partners,); None is uniform.
        undefined: What an episode without a behaviour (a failure) is: "drop" conditions each partner on its
            successes (the paper), "fail" makes failure one more behaviour.
        correction: "miller_madow" or "none"; exact probabilities need none.
        failures: Failed episodes per partner beside counts, failure rates beside probabilities.
        permutations: Number of permutations behind the p-value.
        rng: Seed or generator of the permutations.

    Returns:
        D, S and I in nats with standard errors, p-value and what was corrected.

    Raises:
        InputError: Rows off the simplex, negative or fractional counts, an empty population, or a partner
            without a single defined behaviour (it is named).

    Example:
        >>> specialists = behaviour_information([[1.0, 0.0], [0.0, 1.0]])
        >>> round(specialists.information, 4), specialists.specialization
        (0.6931, 0.0)
        >>> print(behaviour_information(counts=[[190, 10], [20, 160]], failures=[0, 20]).summary())
        D 0.692 ± 0.0018, S -0.276 ± 0.033, I 0.415 ± 0.034 nats: 1.51 of 2 partners told apart (p = 0.001)

    Source: Charakorn et al., NeurIPS 2024, for D and S; the identity I = D + S, bias, standard errors and
        null are ours.
    """
    one_of("correction", correction, CORRECTIONS)
    positive_int("permutations", permutations)
    table = behaviour_table(probabilities, counts, failures=failures, weights=weights, undefined=undefined)
    plug_in = diversity_and_specialization(table)
    counted = table.episodes is not None
    bias = bias_of_plug_in(table) if counted and correction == "miller_madow" else (0.0, 0.0)
    diversity, specialization = (float(value - off) for value, off in zip(plug_in, bias, strict=True))
    return BehaviourInformation(
        diversity=diversity,
        specialization=specialization,
        information=diversity + specialization,
        stderr=standard_errors(table) if counted else dict.fromkeys(NAMES, 0.0),
        p_value=independence_p_value(table, permutations=permutations, rng=rng) if counted else None,
        effective_partners=float(np.exp(diversity + specialization)),
        bias=dict(zip(NAMES, (*bias, sum(bias)), strict=True)),
        n_partners=len(table.weights),
        n_behaviours=table.probabilities.shape[1],
        episodes=int(table.episodes.sum()) if table.episodes is not None else None,
    )


NAMES = ("diversity", "specialization", "information")


def diversity_and_specialization(table: BehaviourTable) -> tuple[float, float]:
    """Return the plug-in D = H(m) and S = -sum_i w_i H(P_i), nats."""
    diversity = float(entropy(table.mixture, check=False))
    return diversity, 0.0 - float(table.weights @ entropy(table.probabilities, axis=1, check=False))

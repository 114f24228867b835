"""The gate: specialize only where held-out forecasts say so, and say how much data would decide.

A fall-back judged on the data that chose the partition is no safeguard: the optimism of a minimum over K
models on T points is first order in their distance, the cost of a spurious specialist second order, so that
it adopts exactly when heterogeneity is weak. Here the whole search is repeated cold without each block of
VAL, and the block judges it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core import Decision, specialize_or_fall_back
from metier.forecast.gate.folds import NO_VARYING_SERIES, FoldPlan
from metier.forecast.gate.heldout import HeldOut
from metier.forecast.gate.reasons import GateReason

Floats = NDArray[np.float64]

GATES = ("crossfit", "mean", "paper", "none")
SCOPES = ("whole", "cluster")
SELECTABLE = ("local", "clustered")
"""Candidates that the gate may choose over the global model. The others, k-means of coefficients and
balanced random clusters, are always shown and never chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way to serve the panel, judged on held-out origins.

    Attributes:
        name: "global", "local", "clustered", "feature" or "random".
        n_specialists: models it uses.
        loss: mean held-out loss, on the standardized scale.
        relative_gain: share of the global model's loss that it saves.
        decision: the test against the global model, or None where there was none.
        chosen: whether the forecaster uses it.
        judged_on: "held-out blocks", or "VAL" where no block could be held out.
    """

    name: str
    n_specialists: int
    loss: float
    relative_gain: float
    decision: Decision | None
    chosen: bool
    judged_on: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "name": self.name,
            "n_specialists": self.n_specialists,
            "loss": self.loss,
            "relative_gain": self.relative_gain,
            "decision": None if self.decision is None else self.decision.to_dict(),
            "chosen": self.chosen,
            "judged_on": self.judged_on,
        }


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GateReport:
    """What the gate saw and did.

    Attributes:
        gate, scope: the modes.
        chosen: the candidate in use.
        decision: the test behind it; per cluster, that of the cluster with the largest gain among those
            that pay (else of all). gate="mean", "paper" and "none" choose without asking it: what they
            chose stands in `chosen` and `reason`, and the decision adopts only where it says "pays".
        reason: one sentence.
        code: a `GateReason` where no test decided, else the code of the decision.
        flag: what the folds had to give up ("", "two_blocks", "truncated_gap").
        n_blocks, gap: the folds.
        keep: (K,) clusters that keep their specialist.
        by_cluster: the decision of each cluster under scope="cluster" (or the paper's gate).
        tests: decision of each tested candidate.
    """

    gate: str
    scope: str
    chosen: str
    decision: Decision
    reason: str
    flag: str
    n_blocks: int
    gap: int
    keep: NDArray[np.bool_]
    by_cluster: tuple[Decision, ...]
    tests: Mapping[str, Decision]
    code: str = ""


def paper_fallback(specialist: ArrayLike, base: ArrayLike) -> NDArray[np.bool_]:
    """Clusters that stay specialized under the paper's rule: revert only if strictly worse on the same VAL.

    Args:
        specialist: (K,) mean VAL loss of each cluster's series under their specialist.
        base: (K,) the same under the global model.

    Example:
        >>> paper_fallback([1.0, 1.0, 2.0], [1.0, 2.0, 1.0]).tolist()
        [True, True, False]
    """
    return ~(np.asarray(specialist, dtype=np.float64) > np.asarray(base, dtype=np.float64))


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """How the gate decides.

    Args:
        gate: "crossfit" (a test on cold held-out blocks), "mean" (their mean gain above zero), "paper"
            (per-cluster fall-back on the same VAL) or "none" (always the clusters).
        scope: "whole" panel or every "cluster" on its own.
        se: "ewc" or "hac", the long-run variance of the gain over time.
        alpha: level of the gate, shared among what it tests.
    """

    gate: str
    scope: str
    se: str
    alpha: float

    @property
    def holds_out(self) -> bool:
        """Whether the gate needs held-out blocks."""
        return self.gate in ("crossfit", "mean")

    def decide(self, held: HeldOut | None, plan: FoldPlan, *, n_clusters: int) -> GateReport:
        """The candidate to use, from losses on held-out blocks (or, for the paper's gate, on VAL)."""
        everyone = np.ones(n_clusters, dtype=bool)
        if plan.reason == NO_VARYING_SERIES:
            return self._untested(plan, GateReason.NO_VARYING_SERIES, keep=everyone)
        if self.gate in ("paper", "none") and not n_clusters:
            return self._untested(plan, GateReason.TOO_FEW_SERIES, keep=everyone)
        if self.gate == "none":
            return self._untested(plan, GateReason.UNTESTED, keep=everyone, chosen="clustered")
        if held is None or (self.holds_out and plan.reason):
            return self._untested(plan, GateReason.VAL_TOO_SHORT, keep=everyone)
        if self.gate == "paper":
            return self._like_paper(held, plan, n_clusters)
        return self._tested(held, plan, n_clusters)

    def _tested(self, held: HeldOut, plan: FoldPlan, n_clusters: int) -> GateReport:
        names = [name for name in held.names if name in SELECTABLE]
        tests = {name: self._test(held.of(name), held.of("global"), share=len(names)) for name in names}
        if n_clusters == 1 and "clustered" in tests:
            tests["clustered"] = self._as_global(tests["clustered"])
        if self.scope == "cluster" and not n_clusters:
            return self._untested(plan, GateReason.TOO_FEW_SERIES, keep=np.ones(0, dtype=bool), tests=tests)
        if self.scope == "cluster":
            by_cluster = self._test_clusters(held, n_clusters)
            by_cluster = tuple(map(self._as_global, by_cluster)) if n_clusters == 1 else by_cluster
            keep = np.array([self._passes(decision) for decision in by_cluster])
            best = max(by_cluster, key=lambda decision: (self._passes(decision), decision.gain))
            return self._of_clusters(plan, by_cluster, best, keep=keep, tests=tests)
        passed = {name: test.gain for name, test in tests.items() if self._passes(test)}
        chosen = max(passed, key=lambda name: passed[name]) if passed else "global"
        shown = chosen if passed else max(tests, key=lambda name: tests[name].gain)
        keep = np.ones(n_clusters, dtype=bool)
        reason = tests[shown].reason if self.gate == "crossfit" else self._mean_reason(tests[shown])
        return self._report(plan, chosen, tests[shown], keep=keep, tests=tests, reason=reason)

    def _test(self, special: Floats, base: Floats, *, share: int) -> Decision:
        return specialize_or_fall_back(special, base, dependence="time", se=self.se, alpha=self.alpha / share)

    def _passes(self, decision: Decision) -> bool:
        """Whether a candidate may be served: by its test, or for gate="mean" by its mean gain alone."""
        if self.gate == "crossfit":
            return decision.adopt
        return decision.gain > 0 and decision.verdict != "equivalent"

    def _as_global(self, decision: Decision) -> Decision:
        """Keep a lone cluster from being served: folds may have found more, it is the global model."""
        if not self._passes(decision):
            return decision
        return decision.as_same_model(GateReason.ONE_CLUSTER.sentence, code=GateReason.ONE_CLUSTER)

    def _mean_reason(self, decision: Decision) -> str:
        if decision.code == GateReason.ONE_CLUSTER:
            return decision.reason
        sign = "above" if self._passes(decision) else "not above"
        return f"The held-out mean gain {decision.gain:.4g} is {sign} zero (gate='mean' asks for no test)."

    def _test_clusters(self, held: HeldOut, n_clusters: int) -> tuple[Decision, ...]:
        """Each cluster's specialist against the global model on its own series, at alpha / K."""
        special, base = held.names.index("clustered"), held.names.index("global")
        out = []
        for k in range(n_clusters):
            losses = held.by_group[:, k]
            losses = losses[~np.isnan(losses).any(axis=1)]
            out.append(
                self._test(losses[:, special], losses[:, base], share=n_clusters)
                if len(losses) > 1
                else self._no_test(GateReason.NO_ORIGIN)
            )
        return tuple(out)

    def _of_clusters(
        self,
        plan: FoldPlan,
        by_cluster: tuple[Decision, ...],
        shown: Decision,
        *,
        keep: NDArray[np.bool_],
        tests: Mapping[str, Decision] | None = None,
    ) -> GateReport:
        """One report for all clusters, with the numbers of `shown`."""
        reason = (
            f"{keep.sum()} of {len(keep)} clusters keep their specialist; the others use the global model."
        )
        decision = replace(shown, reason=reason)
        chosen = "clustered" if keep.any() else "global"
        return self._report(plan, chosen, decision, keep=keep, by_cluster=by_cluster, tests=tests)

    def _like_paper(self, held: HeldOut, plan: FoldPlan, n_clusters: int) -> GateReport:
        """Per-cluster means over the same VAL that assigned the series."""
        special, base = held.names.index("clustered"), held.names.index("global")
        judged = np.asarray(~np.isnan(held.by_group).any(axis=2))
        count = judged.sum(axis=0)
        means = np.where(judged[:, :, None], held.by_group, 0.0).sum(axis=0) / np.maximum(count, 1)[:, None]
        better = paper_fallback(means[:, special], means[:, base])
        keep = better & (count > 0)
        by_cluster = []
        for k in range(n_clusters):
            gain = float(means[k, base] - means[k, special])
            word = "kept" if keep[k] else "reverted"
            text = f"Cluster {k}: mean gain {gain:.4g} on the VAL that assigned it, {word} (gate='paper')."
            by_cluster.append(replace(self._no_test(GateReason.UNTESTED), reason=text, gain=gain))
        overall = float((held.of("global") - held.of("clustered")).mean())
        whole = replace(self._no_test(GateReason.UNTESTED), gain=overall, n=len(held.times))
        return self._of_clusters(plan, tuple(by_cluster), whole, keep=keep)

    def _no_test(self, code: GateReason) -> Decision:
        return Decision.untested(code.sentence, code=code, unit="time steps", alpha=self.alpha)

    def _untested(
        self,
        plan: FoldPlan,
        code: GateReason,
        *,
        keep: NDArray[np.bool_],
        chosen: str = "global",
        tests: Mapping[str, Decision] | None = None,
    ) -> GateReport:
        return self._report(plan, chosen, self._no_test(code), keep=keep, tests=tests)

    def _report(
        self,
        plan: FoldPlan,
        chosen: str,
        decision: Decision,
        *,
        keep: NDArray[np.bool_],
        by_cluster: tuple[Decision, ...] = (),
        tests: Mapping[str, Decision] | None = None,
        reason: str = "",
    ) -> GateReport:
        return GateReport(
            gate=self.gate,
            scope=self.scope,
            chosen=chosen,
            decision=decision,
            reason=reason or decision.reason,
            flag=plan.flag,
            n_blocks=len(plan.folds),
            gap=plan.gap,
            keep=keep,
            by_cluster=by_cluster,
            tests=dict(tests or {}),
            code=decision.code,
        )


def describe_candidates(
    held: HeldOut | None, report: GateReport, *, n_series: int, n_clusters: int, judged_on: str
) -> dict[str, Candidate]:
    """Every candidate's held-out loss beside the global model's, whatever was chosen."""
    out = {}
    for name in held.names if held is not None else ("global",):
        loss = float(held.of(name).mean()) if held is not None else float("nan")
        base = float(held.of("global").mean()) if held is not None else float("nan")
        out[name] = Candidate(
            name=name,
            n_specialists={"global": 1, "local": n_series}.get(name, n_clusters),
            loss=loss,
            relative_gain=(base - loss) / base if base > 0 else 0.0,
            decision=report.tests.get(name),
            chosen=name == report.chosen,
            judged_on=judged_on,
        )
    return out

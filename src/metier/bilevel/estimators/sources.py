"""`SourceReweighting`: how much should each data source count, judged by the one that is trusted."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.preprocessing import StandardScaler

from metier.bilevel.arrays import Codes, Floats, two_dimensional
from metier.bilevel.crossfit import draw_folds, train_and_test
from metier.bilevel.estimate import wald_interval
from metier.bilevel.inner import InnerTask, fit_inner
from metier.bilevel.loss_families import Logistic, Squared
from metier.bilevel.losses import Loss
from metier.bilevel.obigrad import OBiGrad
from metier.bilevel.risks import Parts
from metier.bilevel.roots import BoxRoot, root_in_box
from metier.bilevel.setup import BilevelProblem, learners_by_nuisance
from metier.bilevel.sieve import SieveRidge
from metier.bilevel.targets import ColumnWeight, ExponentialWeight
from metier.core.checks import ensure, finite_array, label_codes, non_negative, one_of, open_fraction
from metier.core.decision import Decision, specialize_or_fall_back
from metier.core.rng import derive, derive_seed, seed_of

from .tables import WIDTH, layout

LOSSES: dict[str, type[Squared] | type[Logistic]] = {"squared": Squared, "logistic": Logistic}


class SourceReweighting:
    r"""Weights of data sources by a bilevel problem, with intervals and a verdict.

    Inner: h_w minimizes the loss over the sources, source s weighted by exp(w_s); one source, the reference,
    has weight 1. Outer: the loss of h_w on the trusted source. The weights are the root of the orthogonal
    gradient, kept in a box; whether they pay against equal weights is measured on folds of the trusted source
    that chose neither the weights nor the model.

    Args:
        loss: "squared" (y any number) or "logistic" (y 0 or 1, predictions are log-odds).
        learner: regression for h and its companions, as in `OBiGrad`; None for a linear ridge of penalty 1 on
            standardized columns. A tuned penalty ("gcv") is refused: rows that only judge have no curvature
            to tune it by.
        train_on_trusted: whether trusted rows also train h, with weight 1. Then with enough data nothing else
            is needed, and a source that differs at all earns a weight that falls toward zero as data grow.
        bound: largest |log weight|; a weight that arrives there is reported.
        folds: of cross-fitting, and of the verdict.
        alpha, margin: of the verdict, as in `metier.specialize_or_fall_back`.
        rng: seed.

    Attributes:
        sources_: sources with a free weight, in the order of `log_weights_`.
        reference_: the source of weight 1.
        log_weights_, stderr_, covariance_: root, standard errors, covariance; NaN at the bound.
        weights_: source -> weight.
        decision_: `Decision` on equal weights (the generalist) against these, on held-out trusted rows.
        fold_log_weights_: (folds, d) what the other folds chose.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, source = rng.normal(size=(1500, 1)), rng.integers(0, 3, 1500)
        >>> y = x[:, 0] * np.array([1.0, 0.7, 1.6])[source] + 0.1 * rng.normal(size=1500)
        >>> found = SourceReweighting(rng=0).fit(x, y, source, trusted=0)
        >>> found.reference_, 0.2 < found.weights_[2] < 0.8, found.decision_.verdict
        (1, True, 'pays')

    Source: ours; data re-weighting as a bilevel problem is common, its gradient here is the paper's idea with
        general losses.
    """

    def __init__(
        self,
        *,
        loss: str = "squared",
        learner: Any = None,
        train_on_trusted: bool = False,
        bound: float = 4.0,
        folds: int = 5,
        alpha: float = 0.05,
        margin: float = 0.0,
        rng: int | np.random.Generator = 0,
    ) -> None:
        self.loss = one_of("loss", loss, LOSSES)
        self.learner = _checked_learner(learner)
        self.train_on_trusted = train_on_trusted
        self.bound = non_negative("bound", bound)
        self.folds = folds
        self.alpha = open_fraction("alpha", alpha)
        self.margin = non_negative("margin", margin)
        self.rng = rng

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        source: Any,
        *,
        trusted: Hashable,
        reference: Hashable = None,
        features: ArrayLike | None = None,
        groups: Any = None,
        folds: ArrayLike | None = None,
        judge: bool = True,
    ) -> Self:
        """Fit weights, intervals and the verdict.

        Args:
            X: (n, p) inputs of the model.
            y: (n,) targets.
            source: (n,) source of each row.
            trusted: the label of the source whose loss counts.
            reference: the source of weight 1; None for the largest one (the trusted one if it trains).
            features: (n, d) u of weights exp(w'u), in place of one weight per source.
            groups: (n,) clusters that stay within a fold, for example series or blocks of time.
            folds: (n,) fold of each row, in place of random ones, for example blocks of time.
            judge: whether to refit on other folds for the verdict; without, `decision_` is None.

        Raises:
            InputError: an unknown trusted label, fewer than two other sources without `features`, or labels
                that are not 0 or 1 with the logistic loss.
        """
        x = two_dimensional(finite_array("X", X))
        target = finite_array("y", y, ndim=1)
        ensure(
            self.loss != "logistic" or np.isin(target, (0.0, 1.0)).all(),
            "the logistic loss takes labels",
            expected="y of 0 and 1",
            got=lambda: f"values from {target.min():g} to {target.max():g}",
            next_step='Use loss="squared", or code the labels.',
        )
        codes, levels = label_codes("source", source)
        for name, length in (("y", len(target)), ("source", len(codes))):
            ensure(
                length == len(x),
                f"{name} has one entry per row of X",
                expected=f"{len(x)} entries",
                got=length,
                next_step="Pass data of the same rows, in the same order.",
            )
        u = self._weight_features(codes, levels, trusted, reference, features)
        is_trusted = codes == levels.index(trusted)
        inner = np.ones(len(x)) if self.train_on_trusted else (~is_trusted).astype(np.float64)
        self._rows = {"y": target, "u": u, "inner": inner, "outer": is_trusted / is_trusted.mean()}
        self._x = x
        clusters = None if groups is None else label_codes("groups", groups)[0]
        self._seed = seed_of(self.rng)
        everything = np.arange(len(x))
        self.root_ = self._root(everything, clusters, folds, derive_seed(self._seed, "all"))
        self.log_weights_, self.covariance_ = self.root_.w, self.root_.covariance
        self.decision_: Decision | None = None
        self.fold_log_weights_ = np.empty((0, u.shape[1]))
        if judge:
            rng = derive(self._seed, "verdict")
            given = None if folds is None else label_codes("folds", folds)[0]
            self._judge(draw_folds(len(x), self.folds, rng, clusters) if given is None else given, clusters)
        return self

    def _weight_features(
        self,
        codes: Codes,
        levels: list[Hashable],
        trusted: Hashable,
        asked: Hashable,
        features: ArrayLike | None,
    ) -> Floats:
        for role, label in (("trusted", trusted), ("reference", asked)):
            ensure(
                label in levels or (role == "reference" and label is None),
                f"{role} names one of the sources",
                expected=", ".join(map(repr, levels[:20])),
                got=repr(label),
                next_step="Pass one of these labels.",
            )
        if features is not None:
            u = two_dimensional(finite_array("features", features))
            self.sources_: tuple[Hashable, ...] = tuple(f"u{k + 1}" for k in range(u.shape[1]))
            self.reference_: Hashable = None
            return u
        others = [k for k in range(len(levels)) if levels[k] != trusted]
        sizes = np.bincount(codes, minlength=len(levels))
        reference = levels.index(trusted) if self.train_on_trusted else max(others, key=lambda k: sizes[k])
        reference = reference if asked is None else levels.index(asked)
        candidates = range(len(levels)) if self.train_on_trusted else others
        free = [k for k in candidates if k != reference]
        ensure(
            bool(free),
            "weights are relative: one source has weight 1",
            expected="two sources beside the trusted one, or train_on_trusted=True",
            got=f"{len(others)} beside it",
            next_step="Pass train_on_trusted=True, or more sources.",
        )
        self.sources_, self.reference_ = tuple(levels[k] for k in free), levels[reference]
        return np.asarray(codes[:, None] == np.array(free), dtype=np.float64)

    def _losses(self) -> tuple[Loss, Loss]:
        kind = LOSSES[self.loss]
        return kind("y", weight=ExponentialWeight("u", base="inner")), kind("y", weight=ColumnWeight("outer"))

    def _root(self, index: Any, clusters: Codes | None, folds: ArrayLike | None, seed: int) -> BoxRoot:
        inner, outer = self._losses()
        rows = {name: column[index] for name, column in self._rows.items()}
        # The share of trusted rows changes with the part.
        rows["outer"] = rows["outer"] / rows["outer"].mean()
        engine = OBiGrad(
            BilevelProblem(inner, outer),
            learner=self.learner,
            folds=self.folds if folds is None else label_codes("folds", np.asarray(folds)[index])[0],
            rng=seed,
            diagnose=False,
        )
        groups = None if clusters is None else clusters[index]
        gradient = engine.fit(self._x[index], rows, groups=groups)._gradient()
        return root_in_box(gradient, rows["u"].shape[1], self.bound)

    def _judge(self, codes: Codes, clusters: Codes | None) -> None:
        weighted, equal = np.full(len(codes), np.nan), np.full(len(codes), np.nan)
        chosen = []
        for fold, (train, test) in enumerate(train_and_test(codes)):
            trusted = test[self._rows["outer"][test] > 0]
            # The other folds serve again, unless only one is left.
            inside = codes if len(np.unique(codes[train])) > 1 else None
            w = self._root(train, clusters, inside, derive_seed(self._seed, "fold", fold)).w
            chosen.append(w)
            weighted[trusted] = self._loss_on(w, train, trusted)
            equal[trusted] = self._loss_on(np.zeros_like(w), train, trusted)
        self.fold_log_weights_ = np.array(chosen)
        judged = np.isfinite(weighted)
        dependence: Any = "independent" if clusters is None else clusters[judged]
        self.decision_ = specialize_or_fall_back(
            weighted[judged], equal[judged], dependence=dependence, alpha=self.alpha, margin=self.margin
        )

    def _fit_model(self, w: Floats, train: Any, X_test: Floats) -> Floats:
        inner, _ = self._losses()
        train = train[self._rows["inner"][train] > 0]
        rows = {name: column[train] for name, column in self._rows.items()}
        parts = Parts(train=self._x[train], test=X_test)
        task = InnerTask(inner, w, {"X": self._x[train], **rows}, None, parts, 1)
        return fit_inner(learners_by_nuisance(self.learner, seed=self._seed)["h"], task).predict("test")

    def _loss_on(self, w: Floats, train: Any, test: Any) -> Floats:
        v = self._fit_model(w, train, self._x[test])
        plain = LOSSES[self.loss]("y")
        return plain.derivatives(w, v, {"y": self._rows["y"][test]}).value

    def predict(self, X: Any, *, log_weights: ArrayLike | None = None) -> Floats:
        """Return h_w at X (m, p): means, or with the logistic loss log-odds.

        Args:
            X: (m, p).
            log_weights: (d,) other weights than the fitted ones; zeros are equal weights.

        Raises:
            InputError: X has other columns than in `fit`, or log_weights another length.
        """
        x = two_dimensional(finite_array("X", X))
        w = self.log_weights_ if log_weights is None else finite_array("log_weights", log_weights, ndim=1)
        for name, got, fitted in (
            ("X has the columns of fit", x.shape[1], self._x.shape[1]),
            ("log_weights has one entry per free source", len(w), len(self.log_weights_)),
        ):
            ensure(
                got == fitted,
                name,
                expected=fitted,
                got=got,
                next_step="Pass the same, in the same order.",
            )
        return self._fit_model(w, np.arange(len(self._x)), x)[:, 0]

    @property
    def stderr_(self) -> Floats:
        """Standard errors of the log weights, (d,); NaN at the bound."""
        return np.sqrt(np.diag(self.covariance_))

    @property
    def weights_(self) -> dict[Hashable, float]:
        """Source -> weight, the reference's 1 included."""
        weights = {name: float(np.exp(w)) for name, w in zip(self.sources_, self.log_weights_, strict=True)}
        return weights if self.reference_ is None else {self.reference_: 1.0, **weights}

    def interval(self, level: float = 0.95) -> Floats:
        """Return intervals of the weights, (d, 2): exponentials of Wald intervals of the logarithms.

        A weight at the lower bound has the interval from 0 to it; one at the upper from it to infinity.
        """
        ends = np.exp(wald_interval(self.log_weights_, self.stderr_, level))
        for k, side in enumerate(self.root_.at_bound):
            if side:
                ends[k] = (0.0, np.exp(-self.bound)) if side < 0 else (np.exp(self.bound), np.inf)
        return ends

    @property
    def warnings_(self) -> tuple[str, ...]:
        """What to know before trusting the numbers."""
        warnings = list(self.root_.warnings)
        for name, side in zip(self.sources_, self.root_.at_bound, strict=True):
            if side:
                effect = "counts for next to nothing" if side < 0 else "outweighs all others"
                warnings.append(f"Source {name!r} {effect}: its weight stopped at the bound.")
        return tuple(warnings)

    def summary(self, level: float = 0.95) -> str:
        """Return weights, intervals, verdict and warnings as text."""
        lines = [f"{'source':<24}{'weight':>10}{'log':>10}{'std err':>10}{'low':>12}{'high':>12}"]
        if self.reference_ is not None:
            lines.append(
                f"{str(self.reference_)[:23]:<24}{1.0:>10.3g}{0.0:>10.3g}{'-':>10}{'-':>12}{'-':>12}"
            )
        for name, w, s, (low, high) in zip(
            self.sources_, self.log_weights_, self.stderr_, self.interval(level), strict=True
        ):
            lines.append(
                f"{str(name)[:23]:<24}{np.exp(w):>10.3g}{w:>10.3g}{s:>10.3g}{low:>12.3g}{high:>12.3g}"
            )
        verdict = "not judged" if self.decision_ is None else self.decision_.reason
        facts = [("rows", str(len(self._x))), ("verdict", verdict)]
        return layout("Weights of data sources".center(WIDTH).strip(), facts, [lines], self.warnings_)

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Return plain Python values; an infinite end or an unknown error is None."""
        ends = [[v if np.isfinite(v) else None for v in pair] for pair in self.interval(level).tolist()]
        errors = [v if np.isfinite(v) else None for v in self.stderr_.tolist()]
        return {
            "reference": None if self.reference_ is None else str(self.reference_),
            "sources": [str(name) for name in self.sources_],
            "log_weights": self.log_weights_.tolist(),
            "stderr": errors,
            "interval": ends,
            "level": level,
            "decision": None if self.decision_ is None else self.decision_.to_dict(),
            "warnings": list(self.warnings_),
        }


def _checked_learner(learner: Any) -> Any:
    if learner is None:
        return SieveRidge(StandardScaler(), penalty=1.0)
    chosen = learners_by_nuisance(learner)
    tuned = [n for n, one in chosen.items() if isinstance(one, SieveRidge) and one.penalty == "gcv"]
    ensure(
        not tuned,
        "sources are weighed by learners of fixed penalty",
        expected="a number as penalty of every SieveRidge",
        got=f'penalty="gcv" for {", ".join(tuned)}',
        next_step="Pass for example SieveRidge(basis, penalty=1.0).",
    )
    return learner

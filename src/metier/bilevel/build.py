"""Which evaluator a model needs: squared losses, general ones, the restricted class, the kernel rival."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metier.core.errors import InputError

from .evaluation import Repeat
from .general import general_repeats
from .general_fold import NAMES as GENERAL_NAMES
from .kbo import KernelRepeat
from .quadratic import QuadraticRepeat
from .sieve import SieveRidge, checked_penalty

if TYPE_CHECKING:
    from .obigrad import OBiGrad


def build_repeats(model: OBiGrad) -> list[Repeat]:
    """Return one evaluator per draw of folds, with everything fitted that is free of w."""
    from .obigrad import fold_codes, generator_of

    q = model.problem.outputs(model.sample_.rows)
    scalar = model.problem.is_quadratic and q == 1
    quadratic = scalar and model.outer_ is None
    if model.estimator == "adjoint_instrument" and not quadratic:
        losses = f"{type(model.problem.inner_loss).__name__} and {type(model.problem.outer_loss).__name__}"
        raise InputError(
            'estimator="adjoint_instrument" is one of squared losses',
            expected="Squared inner and outer losses of one sample, with one value per row",
            got=f"{losses}, {q} value(s) per row" + ("" if model.outer_ is None else ", two samples"),
            next_step='Use estimator="obigrad".',
        )
    _refuse_unheeded(model, quadratic=quadratic and "adjoint" not in model.external_)
    rng = generator_of(model)
    if model.estimator == "kbo":
        _refuse_unread(model, ())
        draws = model.repeats if model.outer_ is None else 1
        return [KernelRepeat(model, rng, scalar=scalar) for _ in range(draws)]
    if model.inner_class == "restricted":
        _check_restricted(model)
        return general_repeats(model, rng)
    if quadratic and "adjoint" not in model.external_:
        _refuse_unread(model, ("jacobian", "h", "residual", "outcome"))
        oracle = model.estimator == "oracle"
        return [
            QuadraticRepeat(
                model.sample_,
                model.problem,
                learners=model.learners_,
                external=model.external_,
                codes=None if oracle else fold_codes(model.folds, model.sample_, rng),
                residual=model.residual,
                backend=model.backend,
                seed=model.seed_,
            )
            for _ in range(1 if oracle else model.repeats)
        ]
    _refuse_unread(model, GENERAL_NAMES)
    return general_repeats(model, rng)


def _refuse_unread(model: OBiGrad, read: tuple[str, ...]) -> None:
    """Refuse predictions that this problem would never look at."""
    for name in model.external_.given:
        if name not in read:
            raise InputError(
                f"external prediction of {name!r} is of use here",
                expected=" | ".join(read) or f"none with estimator={model.estimator!r}",
                got=repr(name),
                next_step="Drop it: the score of this problem has no such nuisance.",
            )


def _refuse_unheeded(model: OBiGrad, *, quadratic: bool) -> None:
    """Refuse settings that the evaluator of this problem would not look at."""
    kernel, oracle, restricted = (
        model.estimator == "kbo",
        model.estimator == "oracle",
        model.inner_class == "restricted",
    )
    fitted_twice = not (quadratic or kernel or oracle or restricted)
    for setting, unheeded, reach, remedy in (
        (
            'inner_class="restricted"',
            restricted and (kernel or oracle or model.estimator == "adjoint_instrument"),
            'estimator="obigrad" or "plugin"',
            'Use inner_class="pointwise".',
        ),
        (
            "nested=True",
            model.nested and not fitted_twice,
            "a general inner or outer loss, whose nuisances are fitted at one another",
            "Drop nested: nothing here is fitted at in-sample values of h.",
        ),
        (
            'residual="separate"',
            model.residual == "separate" and (kernel or oracle or restricted or not quadratic),
            "two squared losses of one sample, with nuisances to fit",
            "Drop residual: this problem has no residual nuisance to fit.",
        ),
    ):
        if unheeded:
            raise InputError(
                f"{setting} has an effect",
                expected=reach,
                got=f"estimator={model.estimator!r}, inner_class={model.inner_class!r}, "
                f"{'squared' if quadratic else 'general'} losses",
                next_step=remedy,
            )


def _check_restricted(model: OBiGrad) -> None:
    learner = model.learner
    if not isinstance(learner, SieveRidge) or checked_penalty(learner.penalty) is None:
        raise InputError(
            'inner_class="restricted" takes the penalized sieve itself as the target',
            expected="one learner=SieveRidge(basis, penalty=number)",
            got="a tuned penalty" if isinstance(learner, SieveRidge) else type(learner).__name__,
            next_step="Fix the penalty: tuning it would change the target.",
        )
    if model.external_:
        raise InputError(
            'inner_class="restricted" fits in sample',
            expected="no external_predictions",
            got=", ".join(model.external_.given),
            next_step='Drop them, or use inner_class="pointwise".',
        )

"""Which evaluator a model needs: squared losses, general ones, the restricted class, the kernel rival."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metier.core.errors import InputError

from .evaluation import Repeat
from .general import general_repeats
from .kbo import KernelRepeat
from .quadratic import QuadraticRepeat
from .sieve import SieveRidge, checked_penalty

if TYPE_CHECKING:
    from .obigrad import OBiGrad


def build_repeats(model: OBiGrad) -> list[Repeat]:
    """Return one evaluator per draw of folds, with everything fitted that is free of w."""
    from .obigrad import fold_codes, generator_of

    if model.estimator == "adjoint_instrument" and not model.problem.is_quadratic:
        raise InputError(
            'estimator="adjoint_instrument" is one of squared losses',
            expected="Squared inner and outer losses",
            got=f"{type(model.problem.inner_loss).__name__} and {type(model.problem.outer_loss).__name__}",
            next_step='Use estimator="obigrad".',
        )
    if model.estimator == "kbo":
        return [KernelRepeat(model)]
    rng = generator_of(model)
    if model.inner_class == "restricted":
        _check_restricted(model)
        return general_repeats(model, rng)
    quadratic = model.problem.is_quadratic and model.outer_ is None
    if quadratic and "adjoint" not in model.external_:
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
            )
            for _ in range(1 if oracle else model.repeats)
        ]
    return general_repeats(model, rng)


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

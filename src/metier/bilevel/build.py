"""Which evaluator a model needs: squared losses, general ones, the restricted class, the kernel rival."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metier.core.errors import InputError

from .evaluation import Repeat
from .quadratic import QuadraticRepeat

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
        from .kbo import KernelRepeat

        return [KernelRepeat(model)]
    if model.inner_class == "restricted":
        from .restricted import RestrictedRepeat

        return [RestrictedRepeat(model)]
    rng = generator_of(model)
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
    from .general import general_repeats

    return general_repeats(model, rng)

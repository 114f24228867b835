"""Bilevel gradients with a standard error: cross-fitted, orthogonal hypergradients and their roots."""

from metier.bilevel.estimate import (
    Diagnostics as Diagnostics,
    HypergradientEstimate as HypergradientEstimate,
    Solution as Solution,
    Step as Step,
)
from metier.bilevel.estimators.bellman import FittedBellman as FittedBellman
from metier.bilevel.estimators.effects import Effect as Effect
from metier.bilevel.estimators.first_stage import FirstStage as FirstStage, FirstStageRow as FirstStageRow
from metier.bilevel.estimators.iv import IVBilevel as IVBilevel
from metier.bilevel.estimators.moments import LinearFit as LinearFit, TestResult as TestResult
from metier.bilevel.estimators.sources import SourceReweighting as SourceReweighting
from metier.bilevel.estimators.tables import CoefficientTable as CoefficientTable
from metier.bilevel.estimators.weak_instruments import ConfidenceSet as ConfidenceSet
from metier.bilevel.kernel import GaussianRidge as GaussianRidge
from metier.bilevel.loss_families import (
    Huber as Huber,
    LogCosh as LogCosh,
    Logistic as Logistic,
    Poisson as Poisson,
    SmoothPinball as SmoothPinball,
    SoftmaxCE as SoftmaxCE,
    Squared as Squared,
)
from metier.bilevel.losses import (
    CustomLoss as CustomLoss,
    Derivatives as Derivatives,
    Loss as Loss,
    SumLoss as SumLoss,
    TorchLoss as TorchLoss,
    check_loss as check_loss,
)
from metier.bilevel.obigrad import OBiGrad as OBiGrad
from metier.bilevel.roots import BoxRoot as BoxRoot
from metier.bilevel.setup import BilevelProblem as BilevelProblem
from metier.bilevel.sieve import SieveRidge as SieveRidge
from metier.bilevel.targets import (
    AffineTarget as AffineTarget,
    ColumnTarget as ColumnTarget,
    ColumnWeight as ColumnWeight,
    ExponentialWeight as ExponentialWeight,
    FunctionTarget as FunctionTarget,
    FunctionWeight as FunctionWeight,
)

__all__ = [
    "AffineTarget",
    "BilevelProblem",
    "BoxRoot",
    "CoefficientTable",
    "ColumnTarget",
    "ColumnWeight",
    "ConfidenceSet",
    "CustomLoss",
    "Derivatives",
    "Diagnostics",
    "Effect",
    "ExponentialWeight",
    "FirstStage",
    "FirstStageRow",
    "FittedBellman",
    "FunctionTarget",
    "FunctionWeight",
    "GaussianRidge",
    "Huber",
    "HypergradientEstimate",
    "IVBilevel",
    "LinearFit",
    "LogCosh",
    "Logistic",
    "Loss",
    "OBiGrad",
    "Poisson",
    "SieveRidge",
    "SmoothPinball",
    "SoftmaxCE",
    "Solution",
    "SourceReweighting",
    "Squared",
    "Step",
    "SumLoss",
    "TestResult",
    "TorchLoss",
    "check_loss",
]

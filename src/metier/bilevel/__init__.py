"""Bilevel gradients with a standard error: cross-fitted, orthogonal hypergradients and their roots."""

from metier.bilevel.doors.bellman import FittedBellman as FittedBellman
from metier.bilevel.doors.box_root import BoxRoot as BoxRoot
from metier.bilevel.doors.effects import Effect as Effect
from metier.bilevel.doors.first_stage import FirstStage as FirstStage, FirstStageRow as FirstStageRow
from metier.bilevel.doors.iv import IVBilevel as IVBilevel
from metier.bilevel.doors.moments import LinearFit as LinearFit, TestResult as TestResult
from metier.bilevel.doors.sources import SourceReweighting as SourceReweighting
from metier.bilevel.doors.summary_table import CoefficientTable as CoefficientTable
from metier.bilevel.doors.weak_instruments import ConfidenceSet as ConfidenceSet
from metier.bilevel.estimate import (
    Diagnostics as Diagnostics,
    HypergradientEstimate as HypergradientEstimate,
    Solution as Solution,
    Step as Step,
)
from metier.bilevel.kernel import GaussianRidge as GaussianRidge
from metier.bilevel.likelihood_losses import Logistic as Logistic, Poisson as Poisson, SoftmaxCE as SoftmaxCE
from metier.bilevel.loss_check import check_loss as check_loss
from metier.bilevel.losses import (
    CustomLoss as CustomLoss,
    Derivatives as Derivatives,
    Loss as Loss,
    SumLoss as SumLoss,
)
from metier.bilevel.obigrad import OBiGrad as OBiGrad
from metier.bilevel.problem import BilevelProblem as BilevelProblem
from metier.bilevel.residual_losses import (
    Huber as Huber,
    LogCosh as LogCosh,
    SmoothPinball as SmoothPinball,
    Squared as Squared,
)
from metier.bilevel.sieve import SieveRidge as SieveRidge
from metier.bilevel.targets import (
    AffineTarget as AffineTarget,
    ColumnTarget as ColumnTarget,
    ColumnWeight as ColumnWeight,
    ExponentialWeight as ExponentialWeight,
    FunctionTarget as FunctionTarget,
    FunctionWeight as FunctionWeight,
)
from metier.bilevel.torch_loss import TorchLoss as TorchLoss

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

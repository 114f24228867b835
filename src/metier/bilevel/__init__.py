"""Bilevel gradients with a standard error: cross-fitted, orthogonal hypergradients and their roots."""

from metier.bilevel.doors.bellman import FittedBellman as FittedBellman
from metier.bilevel.doors.box_root import BoxRoot as BoxRoot
from metier.bilevel.doors.effects import Effect as Effect
from metier.bilevel.doors.first_stage import FirstStage as FirstStage
from metier.bilevel.doors.first_stage import FirstStageRow as FirstStageRow
from metier.bilevel.doors.iv import IVBilevel as IVBilevel
from metier.bilevel.doors.moments import LinearFit as LinearFit
from metier.bilevel.doors.moments import TestResult as TestResult
from metier.bilevel.doors.sources import SourceReweighting as SourceReweighting
from metier.bilevel.doors.summary_table import CoefficientTable as CoefficientTable
from metier.bilevel.doors.weak_instruments import ConfidenceSet as ConfidenceSet
from metier.bilevel.estimate import Diagnostics as Diagnostics
from metier.bilevel.estimate import HypergradientEstimate as HypergradientEstimate
from metier.bilevel.estimate import Solution as Solution
from metier.bilevel.estimate import Step as Step
from metier.bilevel.kernel import GaussianRidge as GaussianRidge
from metier.bilevel.likelihood_losses import Logistic as Logistic
from metier.bilevel.likelihood_losses import Poisson as Poisson
from metier.bilevel.likelihood_losses import SoftmaxCE as SoftmaxCE
from metier.bilevel.loss_check import check_loss as check_loss
from metier.bilevel.losses import CustomLoss as CustomLoss
from metier.bilevel.losses import Derivatives as Derivatives
from metier.bilevel.losses import Loss as Loss
from metier.bilevel.losses import SumLoss as SumLoss
from metier.bilevel.obigrad import OBiGrad as OBiGrad
from metier.bilevel.problem import BilevelProblem as BilevelProblem
from metier.bilevel.residual_losses import Huber as Huber
from metier.bilevel.residual_losses import LogCosh as LogCosh
from metier.bilevel.residual_losses import SmoothPinball as SmoothPinball
from metier.bilevel.residual_losses import Squared as Squared
from metier.bilevel.sieve import SieveRidge as SieveRidge
from metier.bilevel.targets import AffineTarget as AffineTarget
from metier.bilevel.targets import ColumnTarget as ColumnTarget
from metier.bilevel.targets import ColumnWeight as ColumnWeight
from metier.bilevel.targets import ExponentialWeight as ExponentialWeight
from metier.bilevel.targets import FunctionTarget as FunctionTarget
from metier.bilevel.targets import FunctionWeight as FunctionWeight
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

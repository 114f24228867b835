"""Run folders and what they hold: records, journal, checkpoints, environment."""

from metier.runs.atomic import atomic_write_bytes as atomic_write_bytes
from metier.runs.atomic import atomic_write_text as atomic_write_text
from metier.runs.checkpoints import Checkpoint as Checkpoint
from metier.runs.checkpoints import latest_checkpoint as latest_checkpoint
from metier.runs.checkpoints import save_checkpoint as save_checkpoint
from metier.runs.compare import LossComparison as LossComparison
from metier.runs.compare import RunComparison as RunComparison
from metier.runs.compare import compare_runs as compare_runs
from metier.runs.environment import capture_environment as capture_environment
from metier.runs.figures import BarGroup as BarGroup
from metier.runs.figures import Bars as Bars
from metier.runs.figures import Figure as Figure
from metier.runs.figures import Heatmap as Heatmap
from metier.runs.figures import Histogram as Histogram
from metier.runs.figures import HistogramGroup as HistogramGroup
from metier.runs.figures import IntervalRow as IntervalRow
from metier.runs.figures import Intervals as Intervals
from metier.runs.figures import Lines as Lines
from metier.runs.figures import Panel as Panel
from metier.runs.figures import Panels as Panels
from metier.runs.figures import Picture as Picture
from metier.runs.figures import Reference as Reference
from metier.runs.figures import Series as Series
from metier.runs.from_core import measured as measured
from metier.runs.from_core import paid as paid
from metier.runs.from_core import specialized as specialized
from metier.runs.read import find_runs as find_runs
from metier.runs.read import is_run as is_run
from metier.runs.read import read_config as read_config
from metier.runs.read import read_environment as read_environment
from metier.runs.read import read_result as read_result
from metier.runs.read import read_timings as read_timings
from metier.runs.records import SCHEMA_VERSION as SCHEMA_VERSION
from metier.runs.records import Claim as Claim
from metier.runs.records import Column as Column
from metier.runs.records import DataUsed as DataUsed
from metier.runs.records import Divided as Divided
from metier.runs.records import Headline as Headline
from metier.runs.records import Losses as Losses
from metier.runs.records import Measured as Measured
from metier.runs.records import Paid as Paid
from metier.runs.records import Result as Result
from metier.runs.records import Section as Section
from metier.runs.records import Specialized as Specialized
from metier.runs.records import Table as Table
from metier.runs.run import Run as Run

__all__ = [
    "SCHEMA_VERSION",
    "BarGroup",
    "Bars",
    "Checkpoint",
    "Claim",
    "Column",
    "DataUsed",
    "Divided",
    "Figure",
    "Headline",
    "Heatmap",
    "Histogram",
    "HistogramGroup",
    "IntervalRow",
    "Intervals",
    "Lines",
    "LossComparison",
    "Losses",
    "Measured",
    "Paid",
    "Panel",
    "Panels",
    "Picture",
    "Reference",
    "Result",
    "Run",
    "RunComparison",
    "Section",
    "Series",
    "Specialized",
    "Table",
    "atomic_write_bytes",
    "atomic_write_text",
    "capture_environment",
    "compare_runs",
    "find_runs",
    "is_run",
    "latest_checkpoint",
    "measured",
    "paid",
    "read_config",
    "read_environment",
    "read_result",
    "read_timings",
    "save_checkpoint",
    "specialized",
]

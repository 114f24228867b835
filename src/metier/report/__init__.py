"""Records to one self-contained HTML page. Reads records only; knows no study and no family."""

from metier.report.numbers import (
    format_interval as format_interval,
    format_measured as format_measured,
    format_number as format_number,
    format_value as format_value,
)
from metier.report.page import Entry as Entry, render_page as render_page, write_report as write_report

__all__ = [
    "Entry",
    "format_interval",
    "format_measured",
    "format_number",
    "format_value",
    "render_page",
    "write_report",
]

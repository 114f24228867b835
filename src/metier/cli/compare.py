"""`metier compare A B`: two runs of one study, paired unit by unit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metier.cli.answer import Answer, columns
from metier.cli.options import AsJson

if TYPE_CHECKING:
    from metier.runs import LossComparison, RunComparison


def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="A run, or its folder over seeds.", show_default=False)
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="The run to compare it with.", show_default=False)],
    level: Annotated[float, typer.Option("--level", metavar="P", help="Coverage of the intervals.")] = 0.95,
    as_json: AsJson = False,
) -> Answer:
    """Compare two runs of a study, paired by seed and data."""
    from metier.core.registry import load_study, registry
    from metier.runs import compare_runs, find_runs, read_config

    name = read_config(find_runs(a)[0])["study"]
    paired_on = load_study(name).paired_on if name in registry() else ()
    result = compare_runs(a, b, paired_on=paired_on, level=level)
    return Answer(document=result.to_dict(), text=_text(result), as_json=as_json)


def _text(result: RunComparison) -> str:
    lines = [f"{result.study} ({result.size}), seeds {', '.join(map(str, result.seeds))}"]
    if result.differences:
        lines += [f"  {key}: A {a!r}, B {b!r}" for key, (a, b) in result.differences.items()]
    else:
        lines.append("  same configuration: a difference comes from versions or machines")
    rows = [["LOSS", "A", "B", "GAIN OF A (B - A)", "", "P", "UNITS", "VERDICT"]]
    rows += [_row(loss) for loss in result.losses]
    unpaired = sum(loss.unpaired for loss in result.losses)
    note = [f"{unpaired} units that only one run has were left out."] if unpaired else []
    return "\n".join([*lines, "", columns(rows), *note])


_READING = {"holds": "A is better", "does not hold": "B is better", "equivalent": "identical"}


def _row(loss: LossComparison) -> list[str]:
    c, judged = loss.comparison, loss.verdict
    low, high = c.interval
    verdict = _READING.get(judged.verdict, judged.verdict)
    if judged.verdict == "undecided" and math.isfinite(judged.needed):
        verdict += f"; about {judged.needed:,.0f} {judged.unit} would decide"
    interval = f"[{low:.4g}, {high:.4g}]"
    return [
        loss.id,
        f"{loss.mean_a:.5g}",
        f"{loss.mean_b:.5g}",
        f"{c.gain:.4g}",
        interval,
        f"{c.p_value:.3g}",
        f"{c.n} {c.unit}",
        verdict,
    ]

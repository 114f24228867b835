"""A log of routing figures, one JSON object a line, for dashboards and for the pictures of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metier.core.errors import InputError

if TYPE_CHECKING:
    from .balancer import Balancer


class MetricsLog:
    """Append the figures of a balancer's last step to a JSON Lines file.

    A line holds the step, the figures of `Balancer.metrics` (means and worst layers: as many keys for
    any model), and the loads of every layer for `moe.plot_loads`.

    Args:
        path: The file; it is appended to, so that a resumed run goes on in it.
        loads: Whether to write every layer's loads too.

    Example:
        >>> import tempfile, torch
        >>> from metier import moe
        >>> b = moe.balancer("phi")
        >>> gate = b.add_layer(n_experts=4, top_k=1)
        >>> _ = b.observe(gate, torch.zeros(8, 4), indices=torch.arange(8).reshape(8, 1) % 4)
        >>> b.step()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = MetricsLog(f"{folder}/routing.jsonl")
        ...     log.write(b)
        ...     records = read_metrics_log(log.path)
        >>> records[0]["step"], records[0]["metrics"]["max_vio/mean"], records[0]["loads"]
        (1, 0.0, {'layer_0': [0.25, 0.25, 0.25, 0.25]})
    """

    def __init__(self, path: str | Path, *, loads: bool = True) -> None:
        self.path = Path(path)
        self.loads = loads

    def write(self, balancer: Balancer, *, more: Mapping[str, float] | None = None) -> None:
        """Append one line for the balancer's last step; in data parallelism on one rank only.

        Args:
            balancer: A balancer that finished a step.
            more: Further figures of the loop, such as the task loss.
        """
        if balancer.last is None:
            raise InputError(
                "a log follows finished steps",
                expected="balancer.step() before write",
                got="no finished step",
                next_step="Call write after step.",
            )
        record: dict[str, Any] = {
            "step": balancer.steps,
            "metrics": {**balancer.metrics(), **dict(more or {})},
        }
        if self.loads:
            shares = {name: row / row.sum() for name, row in balancer.last.counts().items()}
            record["loads"] = {name: [round(x, 6) for x in row.tolist()] for name, row in shares.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(record)) + "\n")


def read_metrics_log(path: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a log; a last line that was cut off is left out.

    Args:
        path: The file that `MetricsLog` wrote.

    Returns:
        One record a step: "step", "metrics", and "loads" by layer.

    Raises:
        InputError: A line that is not the last is no JSON object.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f"{folder}/a.jsonl").write_text('{"step": 1}\\n{"st')
        ...     read_metrics_log(f"{folder}/a.jsonl")
        [{'step': 1}]
    """
    records, lines = [], Path(path).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise InputError(
                "a log holds one JSON object a line",
                expected="a line that MetricsLog wrote",
                got=f"line {number} of {path}: {error}",
                next_step="Repair or delete that line.",
            ) from error
    return records


def _plain(value: Any) -> Any:
    # JSON has no NaN; null says that a figure has no value.
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

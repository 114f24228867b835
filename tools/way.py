"""Which files of the library a call visits, and how often it comes back to one.

    python tools/way.py thresholds          # the files, in order of first call
    python tools/way.py --functions thresholds

The functions of `src/metier` are listed in the order in which they are first called. A return is a step in
that list into a file that was left before. Neither imports nor what prepares the call count, nor does what
worker threads do. Each call runs in a fresh process: caches would hide part of the way.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Call = Callable[[], object]


def _thresholds() -> Call:
    from metier import multi_index

    return lambda: multi_index.thresholds("He4", snr=4.0)


def _forecast() -> Call:
    import numpy as np
    import pandas as pd

    from metier.forecast import ClusterForecaster

    n_series, n_dates = 40, 300
    rng = np.random.default_rng(0)
    seasons = np.sin(2 * np.pi * np.arange(n_dates) / 7 + rng.integers(0, 2, (n_series, 1)))
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat([f"s{i}" for i in range(n_series)], n_dates),
            "ds": np.tile(pd.date_range("2020-01-01", periods=n_dates), n_series),
            "y": (seasons + 0.3 * rng.standard_normal((n_series, n_dates))).ravel(),
        }
    )
    return lambda: ClusterForecaster().fit(frame)


def _moe() -> Call:
    import torch

    from metier import moe

    layer = moe.SparseMoE(16, 32, n_experts=4, top_k=2, balancer=moe.balancer("phi"))
    tokens = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    return lambda: layer(tokens).sum().backward()


def _partners() -> Call:
    from metier import partners

    game = partners.games.LeverGame()
    return lambda: partners.train_xp_min(game, n_members=2, steps=2)


CALLS: dict[str, Callable[[], Call]] = {
    "thresholds": _thresholds,
    "forecast": _forecast,
    "moe": _moe,
    "partners": _partners,
}
"""Name -> what prepares the call, outside the count, and returns it. Add a line for another one."""


def first_calls(call: Call, root: Path) -> list[tuple[str, str]]:
    """Return (file below root, function) of every function of the library, in order of first call."""
    order: dict[tuple[str, str], None] = {}
    prefix = f"{root}/"

    def visit(frame: Any, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(prefix):
            order.setdefault((code.co_filename.removeprefix(prefix), code.co_qualname))

    sys.setprofile(visit)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(order)


def files_and_returns(functions: list[tuple[str, str]]) -> tuple[list[str], int]:
    """Return the distinct files in order, and how often the list enters one that it left before.

    Example:
        >>> files_and_returns([("a.py", "f"), ("b.py", "g"), ("a.py", "h"), ("a.py", "k")])
        (['a.py', 'b.py'], 1)
    """
    steps = [file for i, (file, _) in enumerate(functions) if i == 0 or functions[i - 1][0] != file]
    files = list(dict.fromkeys(steps))
    return files, len(steps) - len(files)


def main() -> None:
    """Print the way of one named call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("call", choices=CALLS)
    parser.add_argument("--functions", action="store_true", help="list the functions as well")
    options = parser.parse_args()
    import metier

    functions = first_calls(CALLS[options.call](), Path(metier.__file__).parent)
    files, returns = files_and_returns(functions)
    print(f"{options.call}: {len(files)} files, {returns} returns, {len(functions)} functions")
    for file in files:
        print(file)
        if options.functions:
            print(*(f"    {name}" for where, name in functions if where == file), sep="\n")


if __name__ == "__main__":
    main()

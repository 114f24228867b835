"""Run the benchmarks of all families, one process after the other, and print how every goal stands.

    python benchmarks/bench.py
    python benchmarks/bench.py --only multilinear bilevel
    python benchmarks/bench.py --records             # only the table of the records that are there

Each command times ours and the rivals in one process and writes benchmarks/results/NAME.json. Needs the
extra `bench`; takes about half an hour on 2 cores.
`partners.py pipeline`, half an hour by itself, and the rivals that --rival names are run apart.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from goals import rows
from record import table

COMMANDS = {
    "forecast": (
        ("forecast.py", "iteration"),
        ("forecast.py", "gram"),
        ("forecast.py", "fit", "--n-series", "100000"),
    ),
    "balancing": (("moe.py", "dispatch"), ("moe.py", "grid"), ("moe.py", "cost")),
    "multilinear": (("multilinear.py", "all"),),
    "multi_index": (("multi_index.py",), ("multi_index_phase.py",)),
    "bilevel": tuple(("bilevel.py", mode) for mode in ("figure4", "million", "overhead", "rivals")),
    "partners": tuple(("partners.py", mode) for mode in ("environment", "ppo", "xp_min", "self_play")),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the benchmarks and print how every goal stands.")
    parser.add_argument("--only", nargs="+", choices=sorted(COMMANDS), help="these families")
    parser.add_argument("--records", action="store_true", help="run nothing, read the committed records")
    args = parser.parse_args()
    failed = []
    for family in () if args.records else args.only or COMMANDS:
        for script, *options in COMMANDS[family]:
            print(f"\n== {family}: python benchmarks/{' '.join([script, *options])}", flush=True)
            if subprocess.run([sys.executable, Path(__file__).parent / script, *options]).returncode:
                failed.append(" ".join([script, *options]))
    print("\n" + table([tuple(row) for row in rows()]))
    for command in failed:
        print(f"failed: {command}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

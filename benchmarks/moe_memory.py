"""How long phi-balancing should remember, and what: small language models on paired seeds.

    python benchmarks/moe_memory.py
    python benchmarks/moe_memory.py --pure --tracks soft --weights 0.05,0.5

Model, text and training are those of the study `moe-balancing`, shorter; losses and loads are of its tuning
documents, so that the study's held-out ones stay unseen. Writes benchmarks/results/moe-memory.json, with
`-pure` for batches of a single domain.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from metier_studies.lib.paired_seeds import half_width
from metier_studies.moe_balancing.arms import ARMS, Arm
from metier_studies.moe_balancing.study import STUDY
from metier_studies.moe_balancing.train import Training, train
from record import table, write

FIRST_REPLICATE = 2_000_000
"""Seeds of no tuning and no comparison."""
FIGURES = ("loss", "max_vio", "batch_max_vio", "dead", "information", "null")


def variant(track: str, weight_new: float) -> str:
    """Register phi with this memory as an arm, and return its name."""
    name = f"{track}, weight_new {weight_new:g}"
    ARMS[name] = Arm(name, None, parts=(("track", track), ("weight_new", weight_new)))
    return name


def one(arm: str, strength: float | None, replicate: int, options: argparse.Namespace) -> dict[str, float]:
    started = time.process_time()
    setup = STUDY.sizes["standard"].setup(options.seed)
    task = Training(
        arm=arm,
        strength=strength,
        replicate=FIRST_REPLICATE + replicate,
        pure=options.pure,
        steps=options.steps,
        split="tune",
        setup=setup,
    )
    found = train(task)
    return {**{key: float(found[key]) for key in FIGURES}, "cpu_seconds": time.process_time() - started}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="0.05,0.2,0.5")
    parser.add_argument("--tracks", default="soft,hard")
    parser.add_argument("--strength", type=float, default=0.03)
    parser.add_argument("--rivals", default="", help="arms of the study, name=strength,...")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--pure", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    arms: dict[str, float | None] = {}
    for track in options.tracks.split(","):
        for weight in options.weights.split(","):
            arms[variant(track, float(weight))] = options.strength
    for rival in filter(None, options.rivals.split(",")):
        name, strength = rival.split("=")
        arms[name] = float(strength)
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for replicate in range(options.seeds):
        for arm, strength in arms.items():
            found[arm].append(one(arm, strength, replicate, options))
            print(replicate, arm, {key: round(found[arm][-1][key], 4) for key in FIGURES}, flush=True)
    first = next(iter(arms))
    rows: list[tuple[str, ...]] = [("memory", "loss", f"above {first!r}", "MaxVio", "batch MaxVio", "dead")]
    summary: dict[str, Any] = {}
    for arm, seeds in found.items():
        values = {key: np.array([seed[key] for seed in seeds]) for key in FIGURES}
        above = values["loss"] - np.array([seed["loss"] for seed in found[first]])
        summary[arm] = {
            **{key: float(v.mean()) for key, v in values.items()},
            "loss_above_first": float(above.mean()),
            "half_width_95": float(half_width(above)) if len(seeds) > 1 else None,
        }
        rows.append(
            (
                arm,
                f"{values['loss'].mean():.4f}",
                f"{above.mean():+.4f} +- {half_width(above):.4f}",
                *(f"{values[key].mean():.2f}" for key in ("max_vio", "batch_max_vio", "dead")),
            )
        )
    print(table(rows))
    name = "moe-memory-pure" if options.pure else "moe-memory"
    result = {
        "strength": options.strength,
        "steps": options.steps,
        "seeds": options.seeds,
        "mean": summary,
        "runs": found,
    }
    print("wrote", write(name, result, seed=options.seed).name)


if __name__ == "__main__":
    main()

"""A study of arithmetic alone, for the tests of the command; run as a script it is a killable process."""

import os
import sys
import time
from dataclasses import dataclass
from typing import Literal

from metier.core.registry import Entry, registry
from metier.runs import (
    Claim,
    DataUsed,
    Divided,
    Headline,
    Losses,
    Measured,
    Paid,
    Result,
    Specialized,
    Study,
    execute,
)

ENTRY = Entry("toy_study:STUDY", "core", "Do toys specialize?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyConfig:
    n_units: int = 12
    seconds: float = 0.0
    shift: float = 0.0
    gate: Literal["crossfit", "mean"] = "crossfit"
    levels: tuple[float, ...] = (0.5, 0.9)
    label: str | None = None
    noisy: bool = False
    fail_at: int = -1


def run_toy(config, run, progress):
    progress.stage("drawing units, because something must be drawn")
    if config.noisy:
        print("noise from Python")
        os.write(1, b"noise from C\n")

    def unit(k):
        time.sleep(config.seconds)
        if k == config.fail_at:
            raise KeyboardInterrupt
        return run.rng("unit", k).normal() + config.shift

    losses = [
        run.cell(f"unit-{k}", lambda k=k: unit(k)) for k in progress.track(range(config.n_units), "units")
    ]
    mean = sum(losses) / len(losses)
    gain = Measured(value=mean, low=mean - 1, high=mean + 1, level=0.9, n=config.n_units, unit="units")
    return Result(
        study=run.study,
        family="core",
        size=run.size,
        seed=run.seed,
        title="Do toys specialize?",
        question="Is the mean zero?",
        command=run.command,
        headline=Headline(
            divided=Divided(text="one by one", load=[0.5, 0.5]),
            specialized=Specialized(text="not at all"),
            paid=Paid(text="unclear", gain=gain, verdict="undecided", needed=99, needed_unit="units"),
        ),
        claims=(
            Claim(
                id="mean",
                statement="The mean is zero.",
                source="ours",
                minimum_effect="1",
                measured=gain,
                verdict="undecided",
                needed=99,
                needed_unit="units",
                command=run.command,
            ),
        ),
        losses=(
            Losses(
                id="loss",
                description="a drawn number",
                unit="unit",
                keys=[f"u{k}" for k in range(config.n_units)],
                values=losses,
            ),
        ),
        data=(DataUsed(name="none", sha256="0" * 64),),
    )


STUDY = Study(
    name="toy",
    family="core",
    title="Do toys specialize?",
    question="Is the mean zero?",
    sizes={"tour": ToyConfig(), "standard": ToyConfig(n_units=20), "full": ToyConfig(n_units=30)},
    run=run_toy,
    claims=("mean",),
    paired_on=("n_units",),
)

if __name__ == "__main__":
    if sys.argv[1] == "cli":
        from metier.cli import main

        registry()["toy"] = ENTRY
        sys.exit(main(sys.argv[2:]))
    print("ready", flush=True)
    execute(STUDY, sys.argv[1], overrides={"seconds": "0.1"}, seed=5, resume=True)

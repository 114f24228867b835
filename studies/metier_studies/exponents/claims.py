"""Claims of the study `exponents`: what was predicted, the smallest effect that matters, what was seen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from metier.core import Estimate
from metier.runs import Claim, Measured
from metier_studies.exponents.half_ratio import EXCESS, measured_half_ratios
from metier_studies.exponents.measures import FACTORS
from metier_studies.lib.claims import claim
from metier_studies.lib.paired_seeds import LEVEL, mean_of

if TYPE_CHECKING:
    from metier_studies.exponents.study import ExponentsConfig

Found = Mapping[str, Any]

SLOPE_MARGIN = 0.02
SPECTRAL_FLOOR = 0.2
SPECTRAL_MARGIN = 0.1
INDEX_BELOW = 0.1
EXCESS_ABOVE = 0.25
ONSET = (0.75, 2.0)
JUMP = (0.75, 1.25)
LADDER_SHARE = 0.03
LOSS_SHARE = 0.05


def _claim(
    id_: str,
    statement: str,
    measured: Measured | Estimate,
    limits: tuple[float, float],
    effect: str,
    command: str,
    shown: Measured | None = None,
) -> Claim:
    low, high = (limit if math.isfinite(limit) else None for limit in limits)
    return claim(
        measured,
        at_least=low,
        at_most=high,
        shown=shown,
        id=id_,
        statement=statement,
        source="paper and metier" if id_.startswith(("slope", "ladder", "loss")) else "metier",
        minimum_effect=effect,
        command=command,
    ).model_copy(update={"minimum_effect_value": None})


def claims_of(config: ExponentsConfig, found: Found, seed: int, command: str) -> Iterator[Claim]:
    """Yield every claim, in the order of the study."""
    rows = found["table"]["rows"]
    certified = sum(row["status"] == "certified" for row in rows)
    yield _claim(
        "all-certified",
        f"Every exponent of the {len(rows)} registered activations is certified; none is left undecided.",
        Measured(value=certified, unit="activations"),
        (len(rows), len(rows)),
        "all of them",
        command,
    )
    for name, curve in found["curves"].items():
        yield _claim(
            f"slope-{name.lower()}",
            f"Weak recovery of {name} follows its certified exponent {curve['beta']}: the exact curve's "
            f"local slope at snr {curve['slope_snr']:.1e}.",
            Measured(value=curve["slope"]),
            (curve["beta"] - SLOPE_MARGIN, curve["beta"] + SLOPE_MARGIN),
            f"within {SLOPE_MARGIN} of {curve['beta']}",
            command,
        )
    yield from _spectral_claims(config, found, command)
    yield from _committee_claims(config, found, command)
    yield from _half_claims(config, found, seed, command)
    yield from _ladder_claims(found, command)


def _spectral_claims(config: ExponentsConfig, found: Found, command: str) -> Iterator[Claim]:
    trials = found["spectral"]
    name = f"step{config.spectral_order}"
    below = mean_of([trial["overlaps"][0] for trial in trials])
    yield _claim(
        "spectral-below",
        f"At half the predicted sample ratio the best spectral estimator finds nothing of {name}.",
        below,
        (-math.inf, SPECTRAL_FLOOR),
        f"overlap below {SPECTRAL_FLOOR}",
        command,
    )
    off = [trial["overlaps"][-1] - trial["limits"][-1] for trial in trials]
    yield _claim(
        "spectral-limit",
        f"At {FACTORS[-1]:g} times the predicted ratio it reaches its exact limit "
        f"{trials[0]['limits'][-1]:.3f} on {name}.",
        mean_of(off),
        (-SPECTRAL_MARGIN, SPECTRAL_MARGIN),
        f"mean difference within {SPECTRAL_MARGIN}",
        command,
    )


def _gains(trials: list[dict[str, Any]]) -> list[float]:
    return [trial["index"] - trial["baseline"] for trial in trials]


def _committee_claims(config: ExponentsConfig, found: Found, command: str) -> Iterator[Claim]:
    at, trials = found["predicted"]["committee"], found["committee"]
    low, high = min(config.committee_factors), max(config.committee_factors)
    yield _claim(
        "committee-below",
        f"At {low:g} times the sample ratio {at:.3g} fixed in advance, the ideal student of a committee of "
        f"{config.committee_units} units {config.committee_activation} does not specialize.",
        mean_of(_gains(trials[f"{low:g}"])),
        (-math.inf, INDEX_BELOW),
        f"specialization index at most {INDEX_BELOW} above that of random units",
        command,
    )
    rungs = onset(config.committee_factors, trials)
    yield _claim(
        "committee-onset",
        f"It first specializes at {ONSET[0]:g} to {ONSET[1]:g} times that ratio: the first rung of "
        f"{', '.join(f'{f:g}' for f in config.committee_factors)} whose 95 % interval of the specialization "
        "index lies above random rotations of the span.",
        # A rung is no sampling error: the onset lies between two of them, whatever the seeds.
        Estimate.enclosure(rungs.low or 0.0, math.inf if rungs.high is None else rungs.high),
        ONSET,
        f"onset, with the rung before it, within {ONSET[0]:g} and {ONSET[1]:g}",
        command,
        shown=rungs,
    )
    yield _claim(
        "committee-above",
        f"At {high:g} times that ratio it tells the units apart.",
        mean_of([t["excess"] for t in trials[f"{high:g}"]]),
        (EXCESS_ABOVE, math.inf),
        f"index at least {EXCESS_ABOVE} above that of rotations of the same span (at most 0.47)",
        command,
    )


def _half_claims(config: ExponentsConfig, found: Found, seed: int, command: str) -> Iterator[Claim]:
    at, jump = found["predicted"]["committee"], found["predicted"]["committee_jump"]
    _, limit = measured_half_ratios(found["onset"], config.onset_factors, seed=seed)
    dimensions = ", ".join(map(str, config.onset_dimensions))
    yield _claim(
        "committee-half",
        f"The ratio at which half of the seeds lie {EXCESS:g} above rotations of their own span, "
        f"extrapolated in 1/d from d = {dimensions}, is {ONSET[0]:g} to {ONSET[1]:g} times the ratio "
        f"{at:.3g} fixed in advance.",
        limit,
        ONSET,
        f"extrapolated ratio within {ONSET[0]:g} and {ONSET[1]:g}",
        command,
    )
    share = at / jump
    scaled = limit.model_copy(
        update={
            "value": limit.value * share,
            "low": None if limit.low is None else limit.low * share,
            "high": None if limit.high is None else limit.high * share,
        }
    )
    yield _claim(
        "committee-jump",
        f"That extrapolated ratio is {JUMP[0]:g} to {JUMP[1]:g} times {jump:.3g}, where the lower branch of "
        "matched overlaps ends (`committee_thresholds`, heuristic).",
        scaled,
        JUMP,
        f"within {JUMP[0]:g} and {JUMP[1]:g}",
        command,
    )


def onset(factors: tuple[float, ...], trials: Found) -> Measured:
    """The first factor whose interval of the excess over rotations lies above 0, with the rung before."""
    ladder = sorted(factors)
    for before, factor in zip([0.0, *ladder], ladder, strict=False):
        excess = mean_of([t["excess"] for t in trials[f"{factor:g}"]])
        if excess.low is not None and excess.low > 0:
            method = "rung before and first rung whose interval lies above rotations"
            return Measured(
                value=factor, low=before, high=factor, level=LEVEL, n=excess.n, unit="seeds", method=method
            )
    n = len(trials[f"{ladder[-1]:g}"])
    return Measured(
        value=ladder[-1], low=ladder[-1], level=LEVEL, n=n, unit="seeds", method="no rung specialized"
    )


def _ladder_claims(found: Found, command: str) -> Iterator[Claim]:
    ladder = found["ladder"]
    for id_, kind, words in (
        ("ladder", "noisy", "with noise"),
        ("ladder-noiseless", "clean", "without noise"),
    ):
        target = ladder[f"{kind}_exponent"]
        yield _claim(
            id_,
            f"Units of strength 1/k are learned at sample ratios that grow as k^{target:g} {words}: the "
            "slope from a third of the ranks to the last.",
            Measured(value=ladder[f"{kind}_slope"]),
            ((1 - LADDER_SHARE) * target, (1 + LADDER_SHARE) * target),
            f"within {100 * LADDER_SHARE:.0f} % of {target:g}",
            command,
        )
    target = ladder["loss_exponent"]
    yield _claim(
        "loss",
        f"The loss down the ladder falls as (n/d)^-{target:.3g}.",
        Measured(value=ladder["loss_slope"]),
        ((1 - LOSS_SHARE) * target, (1 + LOSS_SHARE) * target),
        f"within {100 * LOSS_SHARE:.0f} % of {target:.3g}",
        command,
    )

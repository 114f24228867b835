"""Claims, figures and the headline of the study `exponents`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from metier.core import specialize_or_fall_back
from metier.runs import (
    Claim,
    Column,
    Divided,
    Figure,
    Headline,
    Lines,
    Measured,
    Reference,
    Result,
    Run,
    Section,
    Series,
    Specialized,
    Table,
    paid,
)
from metier.runs.records import Verdict
from metier.studies.exponents.measures import FACTORS

if TYPE_CHECKING:
    from metier.studies.exponents.study import ExponentsConfig

Found = Mapping[str, Any]

LEVEL = 0.95
SLOPE_MARGIN = 0.02
SPECTRAL_FLOOR = 0.2
SPECTRAL_MARGIN = 0.1
INDEX_BELOW = 0.1
EXCESS_ABOVE = 0.25
ONSET = (0.75, 2.0)
LADDER_SHARE = 0.03
LOSS_SHARE = 0.05


def findings(config: ExponentsConfig, found: Found, run: Run, *, title: str, question: str) -> Result:
    """State what the cells show."""
    command = run.command
    return Result(
        study=run.study,
        family="multi_index",
        size=run.size,
        seed=run.seed,
        title=title,
        question=question,
        command=command,
        claims=tuple(_claims(config, found, command)),
        headline=_headline(config, found),
        sections=(
            _table_section(found),
            _curve_section(found),
            _student_section(config, found),
            _ladder_section(found),
        ),
        notes=(
            "Slopes are of exact curves below the onset of their law, not fits on a short window.",
            "The predicted ratio is that of infinite dimension: the exact instability of overlap 0, where "
            "for an exponent of 2 the units are argued, not proved, to separate at once.",
            "Limits, dimensions and the factors around the predicted ratio were set after pilot runs at "
            "seed 0; the committed record is of a seed that was not looked at before.",
            "Two units that learned the right span and nothing else have a specialization index of 0.53 on "
            "average: specialization is judged against random rotations of each student's own span.",
        ),
    )


def _mean(values: list[float], *, unit: str) -> Measured:
    """Mean with a Student interval."""
    n, mean = len(values), float(np.mean(values))
    half = float(np.std(values, ddof=1)) / math.sqrt(n) * float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    return Measured(
        value=mean, low=mean - half, high=mean + half, level=LEVEL, n=n, unit=unit, method="Student t"
    )


def _verdict(low: float, high: float, limits: tuple[float, float]) -> Verdict:
    """Holds if the interval lies within the limits, fails if it lies outside, else undecided."""
    if limits[0] <= low and high <= limits[1]:
        return "holds"
    return "does not hold" if high < limits[0] or low > limits[1] else "undecided"


def _claim(
    id_: str, statement: str, measured: Measured, limits: tuple[float, float], effect: str, command: str
) -> Claim:
    low = measured.value if measured.low is None else measured.low
    high = measured.value if measured.high is None else measured.high
    verdict = _verdict(low, high, limits)
    needed = None
    if verdict == "undecided" and measured.n:
        room = min(abs(measured.value - limit) for limit in limits if math.isfinite(limit))
        half = max((high - low) / 2.0, 1e-12)
        # The interval must shrink to the distance from the nearest limit, with 80 % power.
        needed = min(10**6, math.ceil(measured.n * (1.43 * half / max(room, 1e-6)) ** 2))
    return Claim(
        id=id_,
        statement=statement,
        source="paper and metier" if id_.startswith(("slope", "ladder", "loss")) else "metier",
        minimum_effect=effect,
        measured=measured,
        verdict=verdict,
        needed=needed,
        needed_unit="" if needed is None else "seeds",
        command=command,
    )


def _claims(config: ExponentsConfig, found: Found, command: str) -> Iterator[Claim]:
    rows = found["table"]["rows"]
    certified = sum(row["status"] == "certified" for row in rows)
    yield _claim(
        "all-certified",
        f"Every exponent of the {len(rows)} registered activations is certified; none is left undecided.",
        Measured(value=certified, n=len(rows), unit="activations"),
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
    yield from _ladder_claims(found, command)


def _spectral_claims(config: ExponentsConfig, found: Found, command: str) -> Iterator[Claim]:
    trials = found["spectral"]
    name = f"step{config.spectral_order}"
    below = _mean([trial["overlaps"][0] for trial in trials], unit="seeds")
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
        _mean(off, unit="seeds"),
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
        _mean(_gains(trials[f"{low:g}"]), unit="seeds"),
        (-math.inf, INDEX_BELOW),
        f"specialization index at most {INDEX_BELOW} above that of random units",
        command,
    )
    yield _claim(
        "committee-onset",
        f"It first specializes at {ONSET[0]:g} to {ONSET[1]:g} times that ratio: the first rung of "
        f"{', '.join(f'{f:g}' for f in config.committee_factors)} whose 95 % interval of the specialization "
        "index lies above random rotations of the span.",
        onset(config.committee_factors, trials),
        ONSET,
        f"onset, with the rung before it, within {ONSET[0]:g} and {ONSET[1]:g}",
        command,
    )
    yield _claim(
        "committee-above",
        f"At {high:g} times that ratio it tells the units apart.",
        _mean([t["excess"] for t in trials[f"{high:g}"]], unit="seeds"),
        (EXCESS_ABOVE, math.inf),
        f"index at least {EXCESS_ABOVE} above that of rotations of the same span (at most 0.47)",
        command,
    )


def onset(factors: tuple[float, ...], trials: Found) -> Measured:
    """The first factor whose interval of the excess over rotations lies above 0, with the rung before."""
    ladder = sorted(factors)
    for before, factor in zip([0.0, *ladder], ladder, strict=False):
        excess = _mean([t["excess"] for t in trials[f"{factor:g}"]], unit="seeds")
        if excess.low is not None and excess.low > 0:
            method = "rung before and first rung whose interval lies above rotations"
            return Measured(
                value=factor, low=before, high=factor, level=LEVEL, n=excess.n, unit="seeds", method=method
            )
    n = len(trials[f"{ladder[-1]:g}"])
    return Measured(
        value=ladder[-1], low=ladder[-1], level=LEVEL, n=n, unit="seeds", method="no rung specialized"
    )


def _headline(config: ExponentsConfig, found: Found) -> Headline:
    """The ideal student at the last rung: who learned which direction, what that tells, what it gains."""
    top = max(config.committee_factors)
    trials = found["committee"][f"{top:g}"]
    load = np.mean([t["load"] for t in trials], axis=0)
    null = np.mean([t["rotated_information"] for t in trials], axis=0)
    told = float(np.mean([t["information"] for t in trials]))
    specialist, generalist = ([t[key] for t in trials] for key in ("risk", "rotated_risk"))
    decision = specialize_or_fall_back(specialist, generalist)
    first = onset(config.committee_factors, found["committee"])
    answer = paid(
        decision,
        text=f"At {top:g} times the predicted ratio the student with its own units has an excess "
        f"risk of {float(np.mean(specialist)):.3f}; with the same span and rotated units "
        f"{float(np.mean(generalist)):.3f}.",
    )
    when = f"first at {first.value:g} times" if first.high is not None else f"not up to {first.value:g} times"
    return Headline(
        divided=Divided(
            text=f"{config.committee_units} hidden units over as many planted directions; they specialize "
            f"{when} the predicted sample ratio",
            load=tuple(load.tolist()),
            names=tuple(f"direction {k + 1}" for k in range(len(load))),
        ),
        specialized=Specialized(
            text=f"a unit tells {told:.3f} nats about its direction, beside random rotations of the span",
            information=told,
            null_mean=float(null.mean()),
            p_value=float((1 + np.sum(null >= told)) / (1 + null.size)),
            ceiling=math.log(len(load)),
        ),
        paid=answer.model_copy(update={"needed_unit": "" if answer.needed is None else "seeds"}),
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


def _table_section(found: Found) -> Section:
    rows = tuple(
        (
            row["name"],
            str(row["information"]),
            str(row["generative"]),
            " ".join(map(str, row["kappa"])),
            str(row["noise_sensitivity"]),
            str(row["strong_recovery"]),
            row["constant"],
            row["status"],
        )
        for row in found["table"]["rows"]
    )
    columns = (
        "activation",
        "information",
        "generative",
        "kappa 1..4",
        "noise sensitivity",
        "strong recovery",
    )
    table = Table(
        id="exponents",
        title="Certified exponents",
        columns=(
            *(Column(name=name) for name in columns),
            Column(name="constant", kind="number", digits=6),
            Column(name="status"),
        ),
        rows=rows,
        caption="Activations as given, with the probabilists' Hermite polynomials. The constant c gives weak "
        "recovery its law beta!/(c^2 snr^beta).",
    )
    return Section(
        title="Exponents",
        text="Each exponent is proved: lower coefficients vanish exactly, the first one is enclosed off 0.",
        tables=(table,),
    )


def _curve_section(found: Found) -> Section:
    curves, slopes = [], []
    for name, curve in found["curves"].items():
        curves.append(Series(name=f"{name} ({curve['beta']})", x=curve["snrs"], y=curve["weak_recovery"]))
        slopes.append(
            Series(name=f"{name} ({curve['beta']})", x=curve["slopes"]["x"], y=curve["slopes"]["y"])
        )
    recovery = Figure(
        id="recovery",
        title="Weak recovery",
        caption="Exact curves at unit variance; the exponent in brackets.",
        alt="Samples per dimension over snr: every curve rises toward small snr, steeper with its exponent.",
        data=Lines(x_label="snr", y_label="n/d", x_scale="log", y_scale="log", series=tuple(curves)),
    )
    local = Figure(
        id="slopes",
        title="Its local slope",
        caption="The slope reaches the exponent in brackets only below the onset of the law.",
        alt="Local slopes over snr: each curve levels off at its exponent as snr falls.",
        data=Lines(x_label="snr", y_label="-d ln(n/d) / d ln snr", x_scale="log", series=tuple(slopes)),
    )
    return Section(
        title="Slopes",
        text="A fit on a short window would give He4 any slope between 1 and 2.4; the local slope of the "
        "exact curve says where its law begins.",
        figures=(recovery, local),
    )


def _student_section(config: ExponentsConfig, found: Found) -> Section:
    series = []
    kinds = {"committee": "ideal student (AMP)", "student": "two-layer network (Adam)"}
    for key, name in kinds.items():
        if key not in found:
            continue
        factors = getattr(config, f"{key}_factors")
        for measure, label in (("excess", "above rotations"), ("recovered", "subspace")):
            values = [_mean([t[measure] for t in found[key][f"{f:g}"]], unit="seeds") for f in factors]
            series.append(
                Series(
                    name=f"{name}: {label}",
                    x=tuple(factors),
                    y=tuple(v.value for v in values),
                    low=tuple(v.low for v in values),
                    high=tuple(v.high for v in values),
                    style="line+points",
                )
            )
    figure = Figure(
        id="committee",
        title="Students around the sample ratio fixed in advance",
        caption=f"{config.committee_units} units {config.committee_activation} at unit variance, "
        f"noise {config.committee_noise:g}, d = {config.committee_dimension}; 1 is n/d = "
        f"{found['predicted']['committee']:.3g}. Specialization is above random rotations of the student's "
        "own span, at most 0.47. Bands: 95 % over seeds.",
        alt="Specialization above rotations and share of the subspace, over the sample ratio.",
        data=Lines(
            x_label="n/d over the predicted ratio",
            y_label="specialization above rotations, share of subspace",
            x_scale="log",
            series=tuple(series),
            references=(Reference(axis="x", value=1.0, label="predicted"),),
        ),
    )
    return Section(title="A committee's students", figures=(figure,))


def _ladder_section(found: Found) -> Section:
    ladder = found["ladder"]
    keep = sorted({round(k) for k in np.geomspace(1, len(ladder["ranks"]), 60)})
    ranks = [ladder["ranks"][k - 1] for k in keep]
    steps = Figure(
        id="ladder",
        title="When each unit of a hierarchy is learned",
        caption="Units x^2 of strength 1/k; with noise of variance 1, and without.",
        alt="Sample ratio over rank: both curves are straight on logarithmic axes, steeper with noise.",
        data=Lines(
            x_label="rank k",
            y_label="n/d",
            x_scale="log",
            y_scale="log",
            series=(
                Series(name="with noise", x=ranks, y=[ladder["noisy"][k - 1] for k in keep]),
                Series(name="without", x=ranks, y=[ladder["clean"][k - 1] for k in keep], style="dashed"),
            ),
        ),
    )
    loss = Figure(
        id="loss",
        title="Loss down the ladder",
        caption=f"Predicted slope -{ladder['loss_exponent']:.3g}, measured -{ladder['loss_slope']:.3g}.",
        alt="Excess risk over sample ratio: a straight fall on logarithmic axes.",
        data=Lines(
            x_label="n/d",
            y_label="excess risk",
            x_scale="log",
            y_scale="log",
            series=(Series(name="loss", x=ladder["ratios"], y=ladder["loss"], style="line+points"),),
        ),
    )
    return Section(title="A hierarchy", figures=(steps, loss))

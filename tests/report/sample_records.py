"""One result with a figure of every kind, made of arithmetic alone."""

import math

from metier.runs import (
    BarGroup,
    Bars,
    Claim,
    Column,
    DataUsed,
    Divided,
    Figure,
    Headline,
    Heatmap,
    Histogram,
    HistogramGroup,
    IntervalRow,
    Intervals,
    Lines,
    Losses,
    Measured,
    Paid,
    Panel,
    Panels,
    Reference,
    Result,
    Section,
    Series,
    Specialized,
    Table,
)

DAYS = [f"2001-06-{day:02d}" for day in range(1, 29)]


def wave(phase, n=28):
    return [10 + 4 * math.sin(2 * math.pi * (t + phase) / 7) + 0.1 * t for t in range(n)]


def lines():
    steps = list(range(1, 26))
    fall = [1 / s + 0.2 for s in steps]
    data = Lines(
        x_label="iteration",
        y_label="validation loss",
        series=(
            Series(
                name="raw",
                x=steps,
                y=[f + 0.03 * (-1) ** s for s, f in zip(steps, fall, strict=True)],
                style="muted",
            ),
            Series(
                name="best so far",
                x=steps,
                y=fall,
                low=[f - 0.05 for f in fall],
                high=[f + 0.05 for f in fall],
            ),
            Series(name="global", x=steps, y=[0.5] * 25, style="dashed"),
        ),
        references=(
            Reference(axis="y", value=0.2, label="oracle"),
            Reference(axis="x", value=12, label="adopted"),
        ),
    )
    return Figure(
        id="trace",
        title="Loss by iteration",
        caption="The raw trace need not fall, the best so far does. Settings: `g=0`.",
        alt="The validation loss falls from 1.2 to 0.24 in 25 iterations, below the global 0.5.",
        data=data,
    )


def intervals():
    rows = (
        IntervalRow(label="clustered, cross-fitted gate", value=0.031, low=0.012, high=0.05, emphasis=True),
        IntervalRow(label="local (one model per series)", value=0.012, low=-0.01, high=0.034),
        IntervalRow(label="AR-coefficient k-means", value=0.008, low=-0.004, high=0.02),
        IntervalRow(label="random balanced clusters", value=-0.006, low=-0.016, high=0.004),
    )
    return Figure(
        id="gains",
        title="Gain over the global model",
        caption="Mean loss difference on the test origins with 95 % intervals.",
        alt="Only the clustered model's gain, 0.031 from 0.012 to 0.050, lies above zero.",
        data=Intervals(x_label="gain in squared loss (standardized)", rows=rows),
    )


def bars(*, horizontal=False):
    groups = (
        BarGroup(name="crossfit", values=[0.05, 0.6, 0.95], low=[0.01, 0.4, 0.8], high=[0.2, 0.8, 1.0]),
        BarGroup(name="paper", values=[0.95, 1.0, 1.0]),
    )
    return Figure(
        id="bars-h" if horizontal else "bars",
        title="How often specialists are adopted",
        caption="Share of seeds, with 95 % intervals.",
        alt="The cross-fitted gate adopts in 5 % of homogeneous panels, the paper's in 95 %.",
        data=Bars(
            categories=["homogeneous", "medium", "strong"],
            groups=groups,
            value_label="share of seeds",
            horizontal=horizontal,
            references=() if horizontal else (Reference(axis="y", value=0.1, label="level"),),
        ),
    )


def heatmap(*, diverging=False):
    sign = -1 if diverging else 1
    return Figure(
        id="matrix-d" if diverging else "matrix",
        title="Who forecasts whom",
        caption="Mean loss of each cluster's model on each cluster's series.",
        alt="Each cluster is forecast best by its own model; the diagonal is lowest.",
        data=Heatmap(
            row_labels=["cluster 1", "cluster 2", "cluster 3"],
            column_labels=["model 1", "model 2", "model 3"],
            values=((0.1 * sign, 0.4, 0.8), (0.5, 0.2 * sign, None), (0.7, 0.6, 0.1 * sign)),
            value_label="mean squared loss",
            diverging=diverging,
        ),
    )


def histogram():
    groups = (
        HistogramGroup(name="null", counts=[1, 4, 9, 5, 1, 0, 0]),
        HistogramGroup(name="bootstrap", counts=[0, 0, 0, 2, 6, 7, 3]),
    )
    return Figure(
        id="null",
        title="Information beside its null",
        caption="199 permutations of whole series.",
        alt="The measured information, 0.31 nats, lies far right of the permutation null around 0.1.",
        data=Histogram(
            x_label="information (nats)",
            edges=[0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35],
            groups=groups,
            references=(Reference(axis="x", value=0.31, label="measured"),),
        ),
    )


def panels():
    def one(k):
        y = wave(k)
        tail, ahead = DAYS[20:], y[20:]
        forecast = Series(
            name="forecast", x=tail, y=ahead, low=[v - 1.5 for v in ahead], high=[v + 1.5 for v in ahead]
        )
        series = (
            Series(name="observed", x=DAYS, y=[*y[:20], *[v + 0.4 for v in ahead]], style="muted"),
            forecast,
            Series(name="global model", x=tail, y=[v - 1 for v in ahead], style="dashed"),
        )
        return Panel(title=f"Cluster {k}: weekly, {40 * k} series", series=series, note="example: ATL")

    return Figure(
        id="examples",
        title="One example series per cluster",
        caption="Bands cover 80 %.",
        alt="In all four clusters the specialist's forecast follows the weekly wave; the global model lags.",
        data=Panels(
            x_label="day", y_label="departures", panels=tuple(one(k) for k in range(1, 5)), x_scale="time"
        ),
    )


def table():
    columns = (
        Column(name="Model"),
        Column(name="Test loss", unit="standardized", kind="number", digits=3),
        Column(name="Gain", kind="estimate"),
        Column(name="Series", kind="integer"),
        Column(name="Helped", kind="percent", digits=1),
        Column(name="p", kind="p_value"),
        Column(name="Verdict", kind="verdict"),
    )
    gain = Measured(
        value=0.031, low=0.012, high=0.05, level=0.95, n=868, unit="hours", method="ewc", percent=True
    )
    return Table(
        id="candidates",
        title="Candidates",
        columns=columns,
        rows=(
            ("global", 0.512, None, 120, None, None, None),
            ("clustered", 0.481, gain, 120, 0.93, 0.0004, "pays"),
            ("random balanced", 0.518, None, 120, 0.41, 0.62, "undecided"),
        ),
        caption="Losses on the newest 20 % of the hours.",
        emphasis=(1,),
    )


def claim(number, verdict, **changes):
    fields = {
        "id": f"claim-{number}",
        "statement": f"Claim {number}: specialists <beat> the generalist & keep the level.",
        "source": "paper",
        "minimum_effect": "1 % lower loss",
        "measured": Measured(
            value=0.031, low=0.012, high=0.05, level=0.95, n=868, unit="hours", percent=True
        ),
        "verdict": verdict,
        "command": "metier run sample --size tour --seed 0",
    }
    return Claim(**(fields | changes))


def headline():
    gain = Measured(
        value=0.031, low=0.012, high=0.05, level=0.9, n=868, unit="time steps", method="ewc", percent=True
    )
    return Headline(
        divided=Divided(
            text="120 airports into 4 clusters by which model forecasts them best.",
            load=[0.4, 0.3, 0.2, 0.1],
            names=["hubs", "morning", "weekend", "sparse"],
        ),
        specialized=Specialized(
            text="The clusters tell much about the airport's daily rhythm.",
            information=0.31,
            null_mean=0.1,
            p_value=0.005,
            ceiling=1.28,
        ),
        paid=Paid(
            text="The clustered model forecasts better than the global one.", gain=gain, verdict="pays"
        ),
    )


def sample_result(**changes):
    fields = {
        "study": "sample",
        "family": "forecast",
        "size": "tour",
        "seed": 0,
        "title": "Do airports want different forecasting models?",
        "question": "Does grouping 120 airports by who forecasts whom beat one model for all?",
        "command": "metier run sample --size tour --seed 0",
        "headline": headline(),
        "claims": (
            claim(1, "holds"),
            claim(2, "undecided", needed=4200, needed_unit="hours", reason="The interval holds zero."),
            claim(3, "does not hold"),
            claim(4, "equivalent", measured=Measured(value=3)),
        ),
        "sections": (
            Section(
                title="Where the gain comes from",
                text="First paragraph with `code`.\n\nSecond paragraph, <escaped> & safe.",
                tables=(table(),),
                figures=(intervals(), lines(), panels()),
            ),
            Section(
                title="Checks",
                figures=(bars(), bars(horizontal=True), heatmap(), heatmap(diverging=True), histogram()),
            ),
        ),
        "losses": (
            Losses(id="test", description="test loss", unit="hour", keys=["a", "b"], values=[1.0, 2.0]),
        ),
        "data": (DataUsed(name="flights_hourly", sha256="ab" * 32),),
        "notes": ("Local clocks: 2001-04-01 02:00 hardly exists.",),
    }
    return Result(**(fields | changes))

"""What the trainings show: headline, claims, tables and figures of the study `moe-balancing`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metier.runs import (
    BarGroup,
    Bars,
    DataUsed,
    Divided,
    Figure,
    Headline,
    Heatmap,
    IntervalRow,
    Intervals,
    Losses,
    Measured,
    Panel,
    Panels,
    Result,
    Run,
    Section,
    Series,
    Specialized,
    paid,
)
from metier_studies.lib.paired_seeds import Rows, decide, half_width, mean_of, of, paired
from metier_studies.moe_balancing.arms import ARMS
from metier_studies.moe_balancing.claims import claims, excess
from metier_studies.moe_balancing.tables import arms_table, at_edge, tuning_section

if TYPE_CHECKING:
    from metier_studies.moe_balancing.study import BalancingConfig

ESTIMATORS = {
    "minibatch": "phi, price of the batch itself",
    "paper": "phi, the batch folded in first",
    "lagged": "phi, lagged price",
    "switch": "Switch's loads of the batch",
}


def findings(
    config: BalancingConfig,
    run: Run,
    *,
    facts: Mapping[str, Any],
    tuned: Mapping[str, Any],
    mixed: Mapping[str, Rows],
    pure: Mapping[str, Rows],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
) -> Result:
    """State everything; no number here is new."""
    from metier_studies.moe_balancing.study import STUDY

    ngram = float(facts["ngram"]["val"])
    sizes = config.bias_sizes
    return run.result(
        family="moe",
        title=STUDY.title,
        question=STUDY.question,
        headline=headline(config, facts, mixed),
        claims=claims(
            mixed,
            pure,
            ngram=ngram,
            curves=curves,
            sizes=sizes,
            margin=config.margin,
            command=run.command,
        ),
        sections=(
            Section(
                title="Every balancer on the same seeds",
                text=_setting(config, facts, ngram),
                figures=(loss_figure(mixed), evenness_figure(mixed)),
                tables=(
                    arms_table("arms", "Batches of all domains", mixed, tuned, ngram, margin=config.margin),
                ),
            ),
            Section(
                title="What the experts know about the domain",
                text="The share of each expert in the choices of each domain's held-out bytes, and "
                "the information "
                "that experts carry about the domain beyond the byte itself, above its null of "
                "permuted documents.",
                figures=(composition_figure(config, mixed),),
            ),
            Section(
                title="Batches of a single domain",
                text="Every batch comes from one domain, as with documents that fill a batch. A loss on the "
                "micro-batch then asks each domain to use all experts evenly; a memory over batches "
                "does not.",
                tables=(
                    arms_table(
                        "pure", "Batches of a single domain", pure, tuned, ngram, margin=config.margin
                    ),
                )
                if pure
                else (),
                figures=(bias_figure(curves, sizes),),
            ),
            *tuning_section(tuned),
        ),
        losses=tuple(
            Losses(
                id=arm,
                description=f"validation loss, nats per byte, {ARMS[arm].words}",
                unit="seed",
                keys=[f"seed-{r}" for r in range(len(rows))],
                values=of(rows, "loss"),
            )
            for arm, rows in mixed.items()
        ),
        data=tuple(
            DataUsed(name=name, sha256=digest, description=text)
            for name, digest, text in zip(facts["domains"], facts["sha256"], facts["provenance"], strict=True)
        ),
        notes=_notes(config, tuned),
    )


def headline(config: BalancingConfig, facts: Mapping[str, Any], mixed: Mapping[str, Rows]) -> Headline:
    """Who does the work, what that tells, and whether balancing paid."""
    phi = mixed["phi"]
    counts = np.asarray(phi[0]["counts"], dtype=float)[config.layers // 2]
    told = float(np.mean(excess(phi)))
    rival = "none" if "none" in mixed else next((arm for arm in mixed if arm != "phi"), "phi")
    ours, theirs = paired(of(phi, "loss"), of(mixed[rival], "loss"))
    decision = decide(ours, theirs, margin=config.margin)
    gain = mean_of(theirs - ours)
    answer = paid(
        decision,
        text=f"{_in_words(decision.verdict, gain, rival, config.margin)} The n-gram has "
        f"{facts['ngram']['val']:.3f}, phi {float(ours.mean()):.3f} nats per byte.",
    )
    return Headline(
        divided=Divided(
            text=f"{config.layers} layers of {config.n_experts} experts, {config.top_k} per byte; MaxVio "
            f"{float(of(phi, 'max_vio').mean()):.2f} over all held-out text",
            load=counts / counts.sum(),
            names=[f"expert {e}" for e in range(config.n_experts)],
        ),
        specialized=Specialized(
            text=f"experts tell {told:.3f} nats about the domain beyond the byte and its null",
            information=float(of(phi, "information").mean()),
            null_mean=float(of(phi, "null").mean()),
            p_value=float(of(phi, "null_p").max()),
            ceiling=math.log(len(config.domains)),
        ),
        paid=answer.model_copy(
            update={"gain": gain, "needed_unit": "" if answer.needed is None else "seeds"}
        ),
    )


def _in_words(verdict: str, gain: Measured, rival: str, margin: float) -> str:
    """What phi did to the validation loss, in one sentence."""
    other, size = ARMS[rival].words, f"{abs(gain.value):.4f} nats per byte"
    over = "" if gain.low is None else f" (95 % interval {gain.low:.4f} to {gain.high:.4f}, {gain.n} seeds)"
    if verdict == "pays":
        return f"phi-balancing lowers the validation loss by {size}{over} against {other}."
    if verdict == "hurts":
        return f"phi-balancing costs {size} of validation loss against {other}{over}."
    if verdict == "equivalent":
        return (
            f"phi-balancing and {other} have the same validation loss within {margin:g} nats per byte; "
            f"the gain is {gain.value:.4f}{over}."
        )
    return (
        f"Whether phi-balancing changes the validation loss against {other} is open: {gain.value:.4f}{over}."
    )


def _setting(config: BalancingConfig, facts: Mapping[str, Any], ngram: float) -> str:
    return (
        f"Byte-level transformers of {config.layers} layers with {config.n_experts} experts each, "
        "trained for "
        f"{config.steps} steps of {config.rows * config.length:,} bytes of "
        f"{', '.join(facts['domains'])}. Measured on "
        f"{facts['val_windows']} windows of {facts['val_documents']} held-out documents. A tuned n-gram "
        f"(order {facts['ngram']['order']}, discount {facts['ngram']['discount']}) has {ngram:.3f} "
        "nats per byte "
        "there. All arms of a seed start from the same weights and see the same batches."
    )


def loss_figure(mixed: Mapping[str, Rows]) -> Figure:
    """Each balancer's loss above phi's, paired by seed."""
    rows = []
    for arm, found in mixed.items():
        a, b = paired(of(mixed["phi"], "loss"), of(found, "loss"))
        half = half_width(b - a)
        middle, reach = float((b - a).mean()), 0.0 if math.isnan(half) else half
        if arm != "phi":
            rows.append(
                IntervalRow(
                    label=ARMS[arm].words,
                    value=middle,
                    low=middle - reach,
                    high=middle + reach,
                    emphasis=arm in ("switch", "quantile"),
                )
            )
    return Figure(
        id="balancers-loss",
        title="Validation loss beside phi-balancing",
        caption="Loss above that of phi with the lagged price, nats per byte, 95 % intervals over "
        "paired seeds. "
        "Right of zero: worse than phi.",
        alt="Differences of validation loss between each balancer and phi, with intervals.",
        data=Intervals(x_label="nats per byte above phi", rows=tuple(rows)),
    )


def evenness_figure(mixed: Mapping[str, Rows]) -> Figure:
    """MaxVio of every balancer, over all held-out text and per batch."""
    names = list(mixed)
    return Figure(
        id="balancers-evenness",
        title="How even the experts are",
        caption="MaxVio: how much fuller the fullest expert is than the mean, averaged over layers "
        "and seeds; over "
        "all held-out text, and over the last training batches.",
        alt="Bars of MaxVio by balancer, over all held-out text and per training batch.",
        data=Bars(
            categories=[ARMS[arm].words for arm in names],
            groups=(
                BarGroup(
                    name="all held-out text", values=[float(of(mixed[a], "max_vio").mean()) for a in names]
                ),
                BarGroup(
                    name="per batch", values=[float(of(mixed[a], "batch_max_vio").mean()) for a in names]
                ),
            ),
            value_label="MaxVio",
            horizontal=True,
        ),
    )


def composition_figure(config: BalancingConfig, mixed: Mapping[str, Rows]) -> Figure:
    """Shares of experts in each domain, the middle layer of phi's first seed."""
    shares = np.asarray(mixed["phi"][0]["by_domain"], dtype=float)
    return Figure(
        id="balancers-composition",
        title="Which experts serve which domain",
        caption=f"Layer {config.layers // 2} of {config.layers}, phi-balancing, first seed. Rows sum "
        "to 100 %; even "
        f"use would be {100 / config.n_experts:.1f} % everywhere.",
        alt="A table in color of each expert's share of each domain's choices, in percent.",
        data=Heatmap(
            row_labels=config.domains,
            column_labels=[str(e) for e in range(config.n_experts)],
            values=tuple(tuple(100 * row) for row in shares),
            value_label="% of the domain's choices",
            x_label="expert",
        ),
    )


def bias_figure(curves: Mapping[str, Mapping[str, Sequence[float]]], sizes: Sequence[int]) -> Figure:
    """Relative gradient bias against batch size, for both kinds of batches."""
    titles = {"mixed": "tokens of all domains", "pure": "tokens of one domain"}
    panels = tuple(
        Panel(
            title=titles[stream],
            series=tuple(
                Series(
                    name=ESTIMATORS[kind],
                    x=[math.log2(size) for size in sizes],
                    y=[math.log10(max(value, 1e-6)) for value in values],
                    style="line+points",
                )
                for kind, values in kinds.items()
            ),
        )
        for stream, kinds in curves.items()
    )
    return Figure(
        id="balancers-bias",
        title="Gradient bias against batch size",
        caption="How far the expected balancing gradient of a batch is from that of all tokens, "
        "relative to it, at "
        "fixed weights; both axes are logarithms (base 2 of tokens, base 10 of the bias). With "
        "single-domain batches "
        "more tokens do not help; a memory over batches does.",
        alt="Relative gradient bias against batch size for four estimators, mixed and single-domain batches.",
        data=Panels(
            x_label="log2 of tokens per batch", y_label="log10 of relative bias", panels=panels, share_y=True
        ),
    )


def _notes(config: BalancingConfig, tuned: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [
        "Expert choice is no arm: it lets a token see later ones, which a causal language model must not.",
        "Two domains are read from the installed Python and differ between its versions.",
    ]
    edge = [ARMS[arm].words for arm, found in tuned.items() if at_edge(found)]
    if config.grid == 1:
        notes.append("Strengths are the defaults, not tuned, at this size.")
    elif edge:
        notes.append(f"Chosen at an edge of the grid even after it grew: {', '.join(edge)}.")
    else:
        notes.append("No chosen strength lies at an edge of its grid.")
    notes.append(
        "Intervals are over trainings, with the documents held out once: they say how another seed would do "
        "on this text, not how these models would do on another. Claims are not adjusted for their number; "
        "the p values of the table are."
    )
    return tuple(notes)

"""What study `iv` shows: claims, tables, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metier.core import Estimate, specialize_or_fall_back
from metier.runs import (
    Claim,
    Column,
    DataUsed,
    Divided,
    Figure,
    Headline,
    IntervalRow,
    Intervals,
    Measured,
    Result,
    Run,
    Section,
    Specialized,
    Table,
    paid,
)
from metier_studies.bilevel_iv.cases import STRONG
from metier_studies.lib.claims import claim
from metier_studies.lib.shares import mean, ratio, share
from metier_studies.lib.statements import Statement

if TYPE_CHECKING:
    from metier_studies.bilevel_iv.study import IVConfig

Z95 = 1.959963984540054
Cells = Sequence[Mapping[str, Any]]


def findings(
    config: IVConfig,
    real: Mapping[str, Any],
    rivals: Mapping[str, Any],
    plugin: Cells,
    weak: Cells,
    run: Run,
    *,
    title: str,
    question: str,
) -> Result:
    """The study's result from its cells."""
    return run.result(
        family="bilevel",
        title=title,
        question=question,
        headline=_headline(config, real, plugin),
        claims=tuple(_claims(config, real, plugin, weak, run.command)),
        sections=(
            _real_section(real, rivals),
            _plugin_section(config, plugin),
            _weak_section(config, real, weak),
        ),
        data=tuple(_data(real)),
        notes=(
            "Coverage is reported as measured. Wald intervals, ours included, promise nothing where "
            "instruments are weak.",
            "Two-stage least squares is computed on the same residuals; the rivals get the same rows.",
        ),
    )


def _headline(config: IVConfig, real: Mapping[str, Any], plugin: Cells) -> Headline | None:
    """Instruments divide the rows into groups that are encouraged differently; orthogonality has to pay."""
    name = next((name for name, r in real.items() if r["encouragement"] is not None), None)
    if name is None:
        return None
    found = dict(real[name]["encouragement"])
    load = found.pop("load")
    decision = specialize_or_fall_back(
        [cell["obigrad"] ** 2 for cell in plugin], [cell["plugin"] ** 2 for cell in plugin]
    )
    mean_loss = sum(cell["plugin"] ** 2 for cell in plugin) / len(plugin)
    return Headline(
        divided=Divided(
            text=f"{name}: {real[name]['n']:,} rows in {len(load)} groups by their instruments; every row is "
            "scored by learners that did not see it",
            load=load,
        ),
        specialized=Specialized(text="what a row's instruments tell about its treatment", **found),
        paid=paid(
            decision,
            text=f"With {config.plugin_n} rows and the truth known, the orthogonal score has "
            f"{100 * abs(decision.gain) / mean_loss:.0f} % {'less' if decision.gain > 0 else 'more'} squared "
            f"error than the plug-in, over {len(plugin)} replicates.",
            scale=1.0 / mean_loss,
            percent=True,
        ),
    )


def _claims(
    config: IVConfig, real: Mapping[str, Any], plugin: Cells, weak: Cells, command: str
) -> list[Claim]:
    strong = [real[name] for name in STRONG if name in real]
    gap = max(abs(r["coef"] - r["two_stage"][0]) / r["two_stage"][1] for r in strong)
    form = max(abs(r["coef"] - r["others"]["adjoint_instrument"][0]) / r["stderr"] for r in strong)
    squares = {k: [cell[k] ** 2 for cell in plugin] for k in ("obigrad", "plugin")}
    unit = "replicates"
    statements = [
        Statement(
            id="agrees-with-2sls",
            text="Where instruments are strong, the orthogonal score agrees with two-stage least squares.",
            effect="within half a standard error on every strong data set",
            measured=_exact(gap, "standard errors"),
            limit=0.5,
            below=True,
        ),
        Statement(
            id="instrument-form-as-good",
            text="There its simpler form, the learned first stage as instrument, is as good.",
            effect="within half a standard error on every strong data set",
            measured=_exact(form, "standard errors"),
            limit=0.5,
            below=True,
        ),
        Statement(
            id="plugin-bias",
            text=f"With {config.plugin_n} rows the orthogonal root has far less error than the plug-in root.",
            effect="at most half of its mean squared error",
            measured=ratio(squares["obigrad"], squares["plugin"], unit=unit),
            limit=0.5,
            below=True,
        ),
        Statement(
            id="root-coverage",
            text="There the 95 % interval of the root covers the truth.",
            effect="in at least 90 % of the replicates",
            measured=share([cell["obigrad_covered"] for cell in plugin], unit=unit),
            limit=0.9,
        ),
        Statement(
            id="weak-warning",
            text="A weak instrument is called weak.",
            effect="in at least 90 % of the replicates",
            measured=share([cell["warned"] for cell in weak], unit=unit),
            limit=0.9,
        ),
        Statement(
            id="weak-wald",
            text="There Wald intervals of the orthogonal score fail.",
            effect="they cover in less than 90 % of the replicates",
            measured=share([cell["ours"] for cell in weak], unit=unit),
            limit=0.9,
            below=True,
        ),
        Statement(
            id="weak-set-covers",
            text="The Anderson-Rubin set covers there all the same.",
            effect="in at least 90 % of the replicates",
            measured=share([cell["anderson_rubin"] for cell in weak], unit=unit),
            limit=0.9,
        ),
    ]
    judged = [statement.judged(command) for statement in statements]
    if "card" in real:
        warned = any("weak" in text for text in real["card"]["warnings"])
        row = real["card"]["first_stage"]
        judged.append(
            claim(
                Estimate.exact(float(warned)),
                at_least=1.0,
                shown=Measured(value=row["f_effective"], unit=f"effective F, {row['f_critical']:.1f} needed"),
                id="card-warned",
                statement="Distance to college as an instrument for schooling is called weak.",
                source="metier",
                minimum_effect="the effective F is below what is needed, and the summary says so",
                command=command,
            ).model_copy(update={"minimum_effect_value": None})
        )
    return judged


def _exact(value: float, unit: str) -> Measured:
    return Measured(value=value, unit=unit, method="exact")


def _wald(estimate: Sequence[float], n: int) -> Measured:
    coef, stderr = estimate
    half = Z95 * stderr
    return Measured(
        value=coef, low=coef - half, high=coef + half, level=0.95, n=n, unit="rows", method="Wald"
    )


def _real_section(real: Mapping[str, Any], rivals: Mapping[str, Any]) -> Section:
    rows, bars = [], []
    for name, r in real.items():
        n = r["n"]
        rows.append(
            (
                name,
                r["question"],
                _wald((r["coef"], r["stderr"]), n),
                _wald(r["two_stage"], n),
                _wald(r["others"]["adjoint_instrument"], n),
                r["anderson_rubin_text"],
                r["first_stage"]["f_effective"],
                r["first_stage"]["f_critical"],
            )
        )
        # In standard errors of two-stage least squares, so that all data sets share an axis.
        unit = r["two_stage"][1]
        for label, (coef, stderr) in (
            ("orthogonal", (r["coef"], r["stderr"])),
            ("2SLS", r["two_stage"]),
            ("instrument form", r["others"]["adjoint_instrument"]),
        ):
            bars.append(
                IntervalRow(
                    label=f"{name}: {label}",
                    value=coef / unit,
                    low=(coef - Z95 * stderr) / unit,
                    high=(coef + Z95 * stderr) / unit,
                    emphasis=label == "orthogonal",
                )
            )
    table = Table(
        id="real-data",
        title="Real data",
        columns=(
            Column(name="data"),
            Column(name="effect on"),
            Column(name="orthogonal score", kind="estimate"),
            Column(name="2SLS", kind="estimate"),
            Column(name="instrument form", kind="estimate"),
            Column(name="Anderson-Rubin set"),
            Column(name="effective F", kind="number", digits=1),
            Column(name="needed", kind="number", digits=1),
        ),
        rows=tuple(rows),
        caption="95 % intervals. The instrument form uses the learned first stage as instrument, without the "
        "term that orthogonalizes it under misspecification.",
    )
    figure = Figure(
        id="real-effects",
        title="Effects in real data",
        caption="Estimates with 95 % intervals, in standard errors of two-stage least squares.",
        alt="Estimates by data set and estimator: "
        + "; ".join(f"{row.label} {row.value:.2f}" for row in bars),
        data=Intervals(x_label="effect, in standard errors of 2SLS", rows=tuple(bars)),
    )
    words = "; ".join(
        f"{r['question']}: {r['coef']:.3g} (standard error {r['stderr']:.2g})" for r in real.values()
    )
    tables = (table, _rivals_table(real, rivals)) if rivals else (table,)
    return Section(title="What the instruments say", text=f"{words}.", tables=tables, figures=(figure,))


def _rivals_table(real: Mapping[str, Any], rivals: Mapping[str, Any]) -> Table:
    rows: list[tuple[str, str, str | Measured]] = []
    for name, found in rivals.items():
        ours = real[name]
        rows.append((name, "orthogonal score (ours)", _wald((ours["coef"], ours["stderr"]), ours["n"])))
        for rival, numbers in found.items():
            cell = "not measured" if numbers is None else _wald(numbers, ours["n"])
            rows.append((name, rival, cell))
    return Table(
        id="rivals",
        title="The same rows by other libraries",
        columns=(Column(name="data"), Column(name="estimator"), Column(name="effect", kind="estimate")),
        rows=tuple(rows),
        emphasis=tuple(i for i, row in enumerate(rows) if row[1].endswith("(ours)")),
        caption="DoubleML's partially linear model does not take clusters here; a rival named by the setting "
        "`rival` is run from its file.",
    )


def _plugin_section(config: IVConfig, plugin: Cells) -> Section:
    names = {
        "plugin": "plug-in",
        "adjoint_instrument": "instrument form",
        "obigrad": "orthogonal score",
        "oracle": "oracle",
    }
    rows = []
    for key, name in names.items():
        errors = [cell[key] for cell in plugin]
        rms = (sum(e * e for e in errors) / len(errors)) ** 0.5
        covered = None if key == "oracle" else share([c[f"{key}_covered"] for c in plugin], unit="replicates")
        rows.append((name, mean(errors, unit="replicates"), rms, covered))
    table = Table(
        id="plugin",
        title=f"The root with {config.plugin_n} rows; the truth is 2",
        columns=(
            Column(name="estimator"),
            Column(name="bias", kind="estimate"),
            Column(name="root mean squared error", kind="number"),
            Column(name="95 % interval covers", kind="estimate"),
        ),
        rows=tuple(rows),
        emphasis=(2,),
        caption="The paper's design of Figure 4. The oracle knows the first stage.",
    )
    return Section(
        title="What plugging in costs",
        text="One treatment, three instruments, a linear first stage learned on half the rows. The plug-in "
        "regresses the outcome on what was learned: its error goes straight into the answer.",
        tables=(table,),
    )


def _weak_section(config: IVConfig, real: Mapping[str, Any], weak: Cells) -> Section:
    rows = tuple(
        (name, share([cell[key] for cell in weak], unit="replicates"))
        for key, name in (
            ("ours", "orthogonal score, Wald"),
            ("two_stage", "2SLS, Wald"),
            ("anderson_rubin", "Anderson-Rubin set"),
        )
    )
    f = sorted(cell["f"] for cell in weak)[len(weak) // 2]
    table = Table(
        id="weak",
        title=f"A weak instrument (median effective F {f:.1f})",
        columns=(Column(name="95 % interval"), Column(name="covers the truth", kind="estimate")),
        rows=rows,
        emphasis=(2,),
        caption=f"{config.weak_n} rows, one instrument, strong confounding.",
    )
    words = ""
    if "card" in real:
        words = "Card (1995): " + " ".join(real["card"]["warnings"])
    return Section(title="What weak instruments do", text=words, tables=(table,))


def _data(real: Mapping[str, Any]) -> list[DataUsed]:
    from metier.data import table_registry

    return [
        DataUsed(
            name=name,
            sha256=table_registry[name].files[f"{name}.npy.xz"],
            description=table_registry[name].title,
        )
        for name in real
        if name in table_registry
    ]

"""Accuracy of the forecaster and of its rivals on the same origins of many panels, in one run.

    python benchmarks/forecast_panels.py
    python benchmarks/forecast_panels.py --panels chicago,us_employment --budget 60

Ours fits at all origins of every panel, which gives its regret to its own candidates. Rivals forecast from
the same origins, drawn in one fixed order, until their time for the panel is spent, and are compared with
ours on the origins that they reached. A rival that fails or is not installed is "not measured". Gaps,
scored values and the lags of LightGBM are ours; models of smoothing and of categories see the newest 500
steps, and the latter have no lag beyond the first ones.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import derive, derive_seed
from metier.forecast.report import IN_USE
from metier.runs import Measured
from metier_studies.forecast_panels.cases import CASES, PanelCase, Splits, judge, split
from metier_studies.forecast_panels.study import facts_of, stacked
from metier_studies.forecast_panels.tables import (
    SELECTABLE,
    best_in_hindsight,
    gains,
    mean_over_panels,
    regret,
    regrets,
)
from record import table, write

Floats = NDArray[np.float64]
RECENT = 500
"""Steps that smoothing models and category models see."""
SLOW = 6_000
"""Forecast values per origin beyond which sktime's category forecaster takes many minutes."""


def lightgbm(case: PanelCase, splits: Splits, cutoff: int) -> Floats:
    """mlforecast: one LightGBM for all series, standardized, recursive, on our lags."""
    from lightgbm import LGBMRegressor
    from mlforecast import MLForecast
    from mlforecast.target_transforms import LocalStandardScaler

    past = splits.before(cutoff)
    far = [] if case.far_lag is None else [case.far_lag]
    model = MLForecast(
        models={"lightgbm": LGBMRegressor(verbosity=-1, n_jobs=1, random_state=0)},
        freq=past.freq,
        lags=[*range(1, case.lags + 1), *far],
        target_transforms=[LocalStandardScaler()],
        num_threads=1,
    )
    return wide(model.fit(past.to_frame()).predict(case.horizon), "lightgbm", splits)


def seasonal_naive(case: PanelCase, splits: Splits, cutoff: int) -> Floats:
    """statsforecast: the value one season before."""
    from statsforecast.models import SeasonalNaive

    return smoothed(SeasonalNaive(case.season, alias="model"), case, splits, cutoff)


def theta(case: PanelCase, splits: Splits, cutoff: int) -> Floats:
    """statsforecast: the Theta method, one model per series."""
    from statsforecast.models import Theta

    return smoothed(Theta(case.season, alias="model"), case, splits, cutoff)


def smoothed(model: Any, case: PanelCase, splits: Splits, cutoff: int) -> Floats:
    from statsforecast import StatsForecast

    past = splits.before(cutoff).steps(-RECENT, None)
    found = StatsForecast(models=[model], freq=past.freq, n_jobs=1).forecast(
        df=past.to_frame(), h=case.horizon
    )
    return wide(found, "model", splits)


def category(case: PanelCase, splits: Splits, cutoff: int) -> Floats:
    """sktime: smooth, erratic, intermittent and lumpy series each share a ridge regression on lags."""
    import pandas as pd
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler
    from sktime.forecasting.compose import (
        GroupbyCategoryForecaster,
        TransformedTargetForecaster,
        make_reduction,
    )
    from sktime.transformations.adapt import TabularToSeriesAdaptor
    from sktime.transformations.adi_cv import ADICVTransformer

    past = splits.before(cutoff).steps(-RECENT, None)
    index = pd.MultiIndex.from_product([past.ids, pd.RangeIndex(past.n_steps)], names=["unique_id", "step"])
    ridge = make_reduction(Ridge(alpha=1.0), strategy="recursive", window_length=case.lags, pooling="global")
    pooled = TransformedTargetForecaster(
        [("scale", TabularToSeriesAdaptor(StandardScaler())), ("ridge", ridge)]
    )
    model = GroupbyCategoryForecaster(
        {name: pooled.clone() for name in ("smooth", "erratic", "intermittent", "lumpy")},
        transformer=ADICVTransformer(features=["class"]),
    )
    model.fit(pd.DataFrame({"y": past.values.ravel()}, index=index), fh=list(range(1, case.horizon + 1)))
    return wide(model.predict().reset_index(names=["unique_id", "step"]), "y", splits)


RIVALS: Mapping[str, tuple[str, Callable[[PanelCase, Splits, int], Floats]]] = {
    "mlforecast LightGBM": ("mlforecast", lightgbm),
    "statsforecast SeasonalNaive": ("statsforecast", seasonal_naive),
    "statsforecast Theta": ("statsforecast", theta),
    "sktime GroupbyCategory": ("sktime", category),
}
"""Name -> package, forecaster."""


def versions() -> dict[str, str]:
    """Release of every rival that is installed."""
    packages = dict.fromkeys(package for package, _ in RIVALS.values())
    return {name: metadata.version(name) for name in packages if importlib.util.find_spec(name)}


def wide(frame: Any, column: str, splits: Splits) -> Floats:
    """(N, horizon) forecasts of a long frame, in the panel's order of series."""
    groups = {key: part[column].to_numpy() for key, part in frame.groupby("unique_id", sort=False)}
    return np.array([groups[key] for key in splits.data.ids], dtype=np.float64)


def ours(name: str, case: PanelCase, splits: Splits, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    rng = derive_seed(seed, "forecast-panels", name)
    rows = [judge(case, splits, cutoff, rng=rng, **settings) for cutoff in splits.cutoffs]
    return {
        "squared": {key: value.tolist() for key, value in stacked(rows, "squared").items()},
        "mase": {key: value.tolist() for key, value in stacked(rows, "mase").items()},
        "chosen": [row["chosen"] for row in rows],
        "n_clusters": [row["n_clusters"] for row in rows],
        "flags": sorted({row["flag"] for row in rows if row["flag"]}),
        "wall_seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
    }


def rival(
    package: str,
    forecaster: Callable[[PanelCase, Splits, int], Floats],
    case: PanelCase,
    splits: Splits,
    order: NDArray[np.intp],
    budget: float,
) -> dict[str, Any]:
    """Losses by origin until the budget of CPU seconds is spent."""
    if importlib.util.find_spec(package) is None:
        return {"not_measured": f"{package} is not installed"}
    if forecaster is category and splits.data.n_series * case.horizon > SLOW:
        return {"not_measured": f"more than {SLOW} values per origin, minutes each"}
    start, squared, mase = time.process_time(), {}, {}
    for window in order:
        cutoff = splits.cutoffs[window]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loss, scaled = splits.score(forecaster(case, splits, cutoff), cutoff)
        except Exception as error:  # a rival's failure is a result
            return {"not_measured": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
        if not np.isfinite(loss):
            return {"not_measured": "forecasts are not finite"}
        squared[int(window)], mase[int(window)] = loss, scaled
        if time.process_time() - start > budget:
            break
    return {"squared": squared, "mase": mase, "cpu_seconds": time.process_time() - start}


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    case = CASES[name]
    splits = split(case, options.seed)
    order = derive(options.seed, "origins").permutation(case.n_windows)
    settings = {"gate": options.gate, "assign_on": options.assign_on}
    result: dict[str, Any] = {
        **{key: value for key, value in facts_of(splits).items() if key != "stamps"},
        "protocol": {
            key: getattr(case, key)
            for key in (
                "season",
                "lags",
                "far_lag",
                "horizon",
                "n_windows",
                "step",
                "max_series",
                "max_steps",
            )
        },
        "ours": ours(name, case, splits, options.seed, settings),
    }
    if not options.ours_only:
        result["rivals"] = {
            key: rival(package, forecaster, case, splits, order, options.budget)
            for key, (package, forecaster) in RIVALS.items()
        }
    return result


def compared(measured: Mapping[str, Any], metric: str) -> dict[str, dict[str, float]]:
    """Rival's mean loss over ours, less 1, on the origins that the rival reached: by rival and panel."""
    found: dict[str, dict[str, float]] = {}
    for panel, result in measured.items():
        mine = result["ours"][metric][IN_USE]
        for name, losses in result.get("rivals", {}).items():
            if "not_measured" not in losses:
                theirs = losses[metric]
                same = float(np.mean([mine[window] for window in theirs]))
                found.setdefault(name, {})[panel] = float(np.mean(list(theirs.values()))) / same - 1.0
    return found


def summary(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Regret over panels, and what the rivals lose against ours."""
    squared = {name: arrays(result["ours"]["squared"]) for name, result in measured.items()}
    result: dict[str, Any] = {
        "regret": {name: regret(losses).model_dump() for name, losses in squared.items()},
        "best_in_hindsight": {name: best_in_hindsight(losses) for name, losses in squared.items()},
        "rivals_over_ours": {metric: compared(measured, metric) for metric in ("squared", "mase")},
    }
    if len(squared) > 1:
        result["mean_regret"] = mean_over_panels(regrets(squared)).model_dump()
        result["mean_regret_to_selectable"] = mean_over_panels(regrets(squared, SELECTABLE)).model_dump()
        result["mean_gain_over_global"] = mean_over_panels(gains(squared)).model_dump()
        result["mean_rivals_over_ours"] = {
            metric: {
                name: geometric(list(by_panel.values())).model_dump()
                for name, by_panel in rivals.items()
                if len(by_panel) > 1
            }
            for metric, rivals in result["rivals_over_ours"].items()
        }
    return result


def geometric(excess: list[float]) -> Measured:
    """Geometric mean of 1 + excess over panels, less 1: one panel where a rival explodes does not decide."""
    mean = mean_over_panels(np.log1p(excess))
    ends = {key: float(np.expm1(getattr(mean, key))) for key in ("value", "low", "high")}
    return mean.model_copy(update={**ends, "method": "geometric mean, Student t of logs over panels"})


def arrays(losses: Mapping[str, list[float]]) -> dict[str, Floats]:
    return {name: np.array(values) for name, values in losses.items()}


def show(measured: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    rows = [("panel", "origins", "chosen", "best", "loss", "regret %", "95 % interval", *RIVALS)]
    for name, result in measured.items():
        chosen, cost = result["ours"]["chosen"], found["regret"][name]
        rows.append(
            (
                name,
                str(len(chosen)),
                " ".join(f"{pick}:{chosen.count(pick)}" for pick in SELECTABLE if pick in chosen),
                found["best_in_hindsight"][name],
                f"{np.mean(result['ours']['squared'][IN_USE]):.4f}",
                f"{100 * cost['value']:.2f}",
                interval(Measured(**cost)),
                *(rival_cell(found, result, rival_name, name) for rival_name in RIVALS),
            )
        )
    print(table(rows))
    for key in ("mean_regret", "mean_regret_to_selectable", "mean_gain_over_global"):
        if key in found:
            mean = Measured(**found[key])
            print(f"{key}: {100 * mean.value:.2f} % {interval(mean)} over {mean.n} panels")
    for metric, rivals in found.get("mean_rivals_over_ours", {}).items():
        for name, record in rivals.items():
            mean = Measured(**record)
            print(f"{metric}, {name} over ours: {100 * mean.value:+.1f} % {interval(mean)}, {mean.n} panels")


def rival_cell(found: Mapping[str, Any], result: Mapping[str, Any], rival_name: str, panel: str) -> str:
    """Excess over ours and the origins it was measured on."""
    excess = found["rivals_over_ours"]["squared"].get(rival_name, {}).get(panel)
    if excess is None:
        return "not measured"
    return f"{100 * excess:+.1f} % ({len(result['rivals'][rival_name]['squared'])})"


def interval(measured: Measured) -> str:
    if measured.low is None or measured.high is None:
        return ""
    return f"[{100 * measured.low:.2f}, {100 * measured.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--panels", default=",".join(CASES), help="names of panels, by commas")
    parser.add_argument("--budget", type=float, default=10.0, help="CPU seconds per rival and panel")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gate", default="crossfit")
    parser.add_argument("--assign-on", default="val")
    parser.add_argument("--ours-only", action="store_true", help="leave the rivals out")
    parser.add_argument("--record", default="forecast-panels", help="name of the file under results/")
    options = parser.parse_args()
    measured: dict[str, Any] = {}
    absent = {name: CASES[name].package for name in options.panels.split(",") if not CASES[name].installed}
    for name in options.panels.split(","):
        if name not in absent:
            measured[name] = measure(name, options)
            found = summary(measured)
            print(f"{name}: regret {100 * found['regret'][name]['value']:.2f} %", flush=True)
            write(
                options.record,
                {
                    "settings": vars(options),
                    "rivals_versions": versions(),
                    "absent": absent,
                    "panels": measured,
                    "summary": found,
                },
                seed=options.seed,
            )
    show(measured, summary(measured))


if __name__ == "__main__":
    main()

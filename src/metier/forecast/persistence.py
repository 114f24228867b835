"""Save and load a fitted forecaster: parameters and records as JSON, arrays as safetensors, no pickle."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from metier.core import Decision, InputError
from metier.forecast.gate.candidates import Candidates
from metier.forecast.gate.conformal import Calibration
from metier.forecast.gate.judge import Candidate, GateReport
from metier.forecast.panels.frames import FrameTemplate
from metier.forecast.panels.frequency import Frequency
from metier.forecast.panels.panel import Panel
from metier.forecast.regression.learned import LearnedModel, TargetScale
from metier.forecast.regression.learners import load_fitted
from metier.forecast.regression.models import LinearModel, PanelModel
from metier.forecast.regression.scaling import Scaling
from metier.forecast.serving import Known, Served

if TYPE_CHECKING:
    from metier.forecast.forecaster import ClusterForecaster

FORMAT = 1
RECORD, ARRAYS, LEARNERS = "forecaster.json", "arrays.safetensors", "learners"
Arrays = dict[str, NDArray[Any]]


def write_forecaster(forecaster: ClusterForecaster, served: Served, folder: Path) -> None:
    """Write to a temporary folder beside `folder`, then put it in place.

    Raises:
        InputError: parameters or base models without a safe text form, or a folder that holds other things.
    """
    if folder.exists() and not (folder / RECORD).is_file():
        raise InputError(
            "save replaces only a saved forecaster",
            expected=f"a new folder, or one with {RECORD}",
            got=f"{folder}, which holds something else",
            next_step="Choose another folder.",
        )
    served = served.tail()
    arrays: Arrays = {}
    learners: dict[str, bytes] = {}
    record = {
        "format": FORMAT,
        "parameters": _parameters(forecaster),
        "panel": _pack_panel(served.panel, arrays),
        "lags": list(served.lags),
        "season_length": served.season_length,
        "calendar": list(served.known.calendar),
        "n_clusters": served.n_clusters,
        "levels": list(served.levels),
        "models": {name: _pack_model(name, m, arrays, learners) for name, m in served.models.items()},
        "report": _pack_report(served.report),
        "candidates": {name: candidate.to_dict() for name, candidate in served.candidates.items()},
        "calibration": _pack_calibration(served.calibration, arrays),
    }
    arrays |= {
        "exog_center": served.known.exog_center,
        "exog_scale": served.known.exog_scale,
        "labels": served.labels,
        "fallback": served.fallback,
        "loss_matrix": served.loss_matrix,
        "keep": served.report.keep,
    }
    _pack_scaling("scaling", served.scaling, arrays)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, fresh / ARRAYS)
        for name, content in learners.items():
            (fresh / LEARNERS).mkdir(exist_ok=True)
            (fresh / LEARNERS / name).write_bytes(content)
        (fresh / RECORD).write_text(json.dumps(_plain(record), indent=1, allow_nan=False))
        _put_in_place(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def read_forecaster(folder: Path) -> tuple[dict[str, Any], Served]:
    """Parameters and state of a saved forecaster.

    Raises:
        InputError: no forecaster there, one of another version, or damaged files.
    """
    record = _read_record(folder)
    try:
        arrays = load_file(folder / ARRAYS)
        return record["parameters"], _unpack(record, arrays, folder / LEARNERS)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            "a saved forecaster must be whole",
            expected=f"{RECORD}, {ARRAYS} and {LEARNERS} as save wrote them",
            got=f"{type(error).__name__}: {error} in {folder}",
            next_step="Save the forecaster again.",
        ) from error


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        problem = f"no {RECORD} in {folder}"
    except (OSError, ValueError) as error:
        problem = f"{type(error).__name__}: {error} in {path}"
    else:
        if isinstance(record, dict) and record.get("format") == FORMAT:
            return dict(_revived(record))
        problem = f"format {record.get('format') if isinstance(record, dict) else record!r}"
    raise InputError(
        "load reads a folder that save wrote",
        expected=f"{RECORD} of format {FORMAT}",
        got=problem,
        next_step="Check the folder's name, or save the forecaster again with this version.",
    )


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Rename; an older forecaster steps aside first and is removed last."""
    os.chmod(fresh, 0o755)
    if not folder.exists():
        os.replace(fresh, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    os.replace(folder, old / "replaced")
    os.replace(fresh, folder)
    shutil.rmtree(old)


def _parameters(forecaster: ClusterForecaster) -> dict[str, Any]:
    parameters = dict(forecaster.get_params(deep=False))
    if not isinstance(parameters["model"], str):
        raise InputError(
            "saved forecasters hold no pickles",
            expected="model given by name, such as 'ridge' or 'lightgbm'",
            got=f"an object of type {type(parameters['model']).__name__}",
            next_step="Fit again with a named model, or keep the fitted forecaster in memory.",
        )
    if isinstance(parameters["rng"], np.random.Generator):
        parameters["rng"] = forecaster.seed_  # the one that its fit drew, so that a refit repeats it
    return {key: list(v) if isinstance(v, tuple) else v for key, v in parameters.items()}


def _pack_panel(panel: Panel, arrays: Arrays) -> dict[str, Any]:
    arrays |= {"values": panel.values, "first": panel.first, "stop": panel.stop, "exog": panel.exog}
    arrays["stamps"] = panel.stamps.astype(np.int64)
    return {
        "ids": panel.ids.tolist(),
        "ids_dtype": panel.ids.dtype.str if panel.ids.dtype.kind != "O" else "O",
        "stamps_dtype": panel.stamps.dtype.str,
        "exog_names": list(panel.exog_names),
        "freq": asdict(panel.freq),
        "template": panel.template.to_dict(),
    }


def _unpack_panel(fields: Mapping[str, Any], arrays: Arrays) -> Panel:
    return Panel(
        ids=np.array(fields["ids"], dtype=fields["ids_dtype"]),
        stamps=arrays["stamps"].astype(fields["stamps_dtype"]),
        values=arrays["values"],
        first=arrays["first"],
        stop=arrays["stop"],
        exog=arrays["exog"],
        exog_names=tuple(fields["exog_names"]),
        freq=Frequency(**fields["freq"]),
        template=FrameTemplate.from_dict(fields["template"]),
    )


def _pack_scaling(name: str, scaling: Scaling, arrays: Arrays) -> None:
    arrays |= {
        f"{name}.center": scaling.center,
        f"{name}.scale": scaling.scale,
        f"{name}.constant": scaling.constant,
    }


def _unpack_scaling(name: str, arrays: Arrays) -> Scaling:
    return Scaling(
        center=arrays[f"{name}.center"], scale=arrays[f"{name}.scale"], constant=arrays[f"{name}.constant"]
    )


def _pack_model(name: str, model: PanelModel, arrays: Arrays, learners: dict[str, bytes]) -> dict[str, Any]:
    if isinstance(model, LinearModel):
        arrays[f"{name}.labels"] = model.labels
        arrays |= {f"{name}.theta.{h}": theta for h, theta in enumerate(model.theta)}
        if model.offsets is not None:
            arrays[f"{name}.offsets"] = model.offsets
        return {"kind": "linear", "steps": len(model.theta)}
    if not isinstance(model, LearnedModel):
        raise TypeError(f"no file form for {type(model).__name__}")
    arrays[f"{name}.labels"] = model.labels
    _pack_scaling(f"{name}.learner", model.scale.learner, arrays)
    if model.offsets is not None:
        arrays[f"{name}.offsets"] = model.offsets
    for k, row in enumerate(model.learners):
        learners |= {f"{name}-{k}-{h}": learner.to_bytes() for h, learner in enumerate(row)}
    shape = [len(model.learners), len(model.learners[0])]
    return {"kind": "learned", "shape": shape, "scale": model.scale.kind}


def _unpack_model(
    name: str, fields: Mapping[str, Any], arrays: Arrays, scaling: Scaling, folder: Path
) -> PanelModel:
    labels, offsets = arrays[f"{name}.labels"], arrays.get(f"{name}.offsets")
    if fields["kind"] == "linear":
        theta = tuple(arrays[f"{name}.theta.{h}"] for h in range(fields["steps"]))
        return LinearModel(theta=theta, labels=labels, offsets=offsets)
    clusters, steps = fields["shape"]
    learner = _unpack_scaling(f"{name}.learner", arrays)
    return LearnedModel(
        learners=tuple(
            tuple(load_fitted((folder / f"{name}-{k}-{h}").read_bytes()) for h in range(steps))
            for k in range(clusters)
        ),
        labels=labels,
        scale=TargetScale(standard=scaling, learner=learner, kind=fields["scale"]),
        offsets=offsets,
    )


def _pack_report(report: GateReport) -> dict[str, Any]:
    return {
        "gate": report.gate,
        "scope": report.scope,
        "chosen": report.chosen,
        "decision": report.decision.to_dict(),
        "reason": report.reason,
        "code": str(report.code),
        "flag": report.flag,
        "n_blocks": report.n_blocks,
        "gap": report.gap,
        "by_cluster": [decision.to_dict() for decision in report.by_cluster],
        "tests": {name: decision.to_dict() for name, decision in report.tests.items()},
    }


def _unpack_report(fields: Mapping[str, Any], keep: NDArray[np.bool_]) -> GateReport:
    return GateReport(
        **{
            **fields,
            "decision": _decision(fields["decision"]),
            "by_cluster": tuple(_decision(d) for d in fields["by_cluster"]),
            "tests": {name: _decision(d) for name, d in fields["tests"].items()},
            "keep": keep,
        }
    )


def _decision(fields: Mapping[str, Any]) -> Decision:
    needed = math.inf if fields["needed"] is None else fields["needed"]
    low, high = fields["interval"]
    interval = (-math.inf if low is None else low, math.inf if high is None else high)
    # Folders saved by earlier versions say "adopt" where a gate chose without a test.
    adopt = fields["verdict"] == "pays"
    return Decision(**{**fields, "interval": interval, "needed": needed, "adopt": adopt})


def _candidate(fields: Mapping[str, Any]) -> Candidate:
    decision = None if fields["decision"] is None else _decision(fields["decision"])
    return Candidate(**{**fields, "decision": decision})


def _pack_calibration(calibration: Calibration | None, arrays: Arrays) -> dict[str, Any] | None:
    if calibration is None:
        return None
    for g, row in enumerate(calibration.residuals):
        arrays |= {f"residuals.{g}.{h}": residuals for h, residuals in enumerate(row)}
    arrays["residual_counts"] = calibration.counts
    return {"coverage": [list(row) for row in calibration.coverage], "source": calibration.source}


def _unpack_calibration(fields: Mapping[str, Any] | None, arrays: Arrays) -> Calibration | None:
    if fields is None:
        return None
    counts = arrays["residual_counts"]
    return Calibration(
        residuals=tuple(
            tuple(arrays[f"residuals.{g}.{h}"] for h in range(counts.shape[1]))
            for g in range(counts.shape[0])
        ),
        counts=counts,
        coverage=tuple((int(g), level, share, int(n)) for g, level, share, n in fields["coverage"]),
        source=fields["source"],
    )


def _unpack(record: Mapping[str, Any], arrays: Arrays, learners: Path) -> Served:
    scaling = _unpack_scaling("scaling", arrays)
    models: Candidates = {
        name: _unpack_model(name, fields, arrays, scaling, learners)
        for name, fields in record["models"].items()
    }
    return Served(
        panel=_unpack_panel(record["panel"], arrays),
        lags=tuple(record["lags"]),
        season_length=record["season_length"],
        known=Known(
            calendar=tuple(record["calendar"]),
            exog_center=arrays["exog_center"],
            exog_scale=arrays["exog_scale"],
        ),
        scaling=scaling,
        models=models,
        labels=arrays["labels"],
        n_clusters=record["n_clusters"],
        fallback=arrays["fallback"],
        report=_unpack_report(record["report"], arrays["keep"]),
        candidates={name: _candidate(fields) for name, fields in record["candidates"].items()},
        loss_matrix=arrays["loss_matrix"],
        calibration=_unpack_calibration(record["calibration"], arrays),
        levels=tuple(record["levels"]),
    )


def _plain(value: Any) -> Any:
    """Plain JSON: NumPy scalars unwrapped, non-finite floats as {"float": "inf"}."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _revived(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"float"}:
            return float(value["float"])
        return {key: _revived(entry) for key, entry in value.items()}
    return [_revived(entry) for entry in value] if isinstance(value, list) else value

"""Files that earlier code saved: how they were made, and what they give when they are read.

They are read as copies, because an open run writes to its folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contract_names import HERE, locate
from contract_summary import summary

FILES = HERE / "files"
ENVIRONMENT = {"metier": "0", "commit": None, "python": "", "platform": "", "machine": "", "cpus": 1}
"""In place of the machine's own, which no checksum covers."""
ROWS = {"in_features": 6, "out_features": 3}


def _frame() -> Any:
    import polars as pl

    rng, wave = np.random.default_rng(0), np.sin(np.arange(60) * 2 * np.pi / 6)
    ids = np.repeat([f"s{i}" for i in range(6)], 60)
    shifted = np.concatenate([wave * (1 if i % 2 else -1) + 0.1 * rng.normal(size=60) for i in range(6)])
    return pl.DataFrame({"unique_id": ids, "ds": np.tile(np.arange(60), 6), "y": shifted})


def save_forecaster(folder: Path) -> None:
    forecaster = locate("metier.forecast.ClusterForecaster")(
        horizon=2, lags=6, season_length=6, n_clusters=2, rng=0
    )
    forecaster.fit(_frame()).save(folder / "forecaster")


def read_forecaster(folder: Path) -> dict[str, Any]:
    forecaster = locate("metier.forecast.ClusterForecaster").load(folder / "forecaster")
    return {
        "forecasts": forecaster.predict(level=[80]),
        "load": forecaster.assignment_.load,
        "assigned": forecaster.assign(_frame()),
        "decision": forecaster.decision_,
    }


def _seeded(build: Callable[[], Any]) -> Any:
    import torch

    torch.manual_seed(0)
    return build()


def _rows() -> Any:
    import torch

    return torch.linspace(-1, 1, 4 * ROWS["in_features"]).reshape(4, -1)


def save_multilinear(folder: Path) -> None:
    moe = locate("metier.moe")
    for form in ("cp", "tr", "tt", "tucker", "mxd"):
        layer = _seeded(lambda form=form: moe.MultilinearMoE(**ROWS, n_experts=4, form=form))
        layer.save_pretrained(folder / form)


def read_multilinear(folder: Path) -> dict[str, Any]:
    layers = {
        path.name: locate("metier.moe.MultilinearMoE").from_pretrained(path) for path in folder.iterdir()
    }
    return {form: [layer.eval()(_rows()), layer.expert_weight(1)] for form, layer in sorted(layers.items())}


def _sparse() -> tuple[Any, Any]:
    moe = locate("metier.moe")
    layer = _seeded(lambda: moe.SparseMoE(6, 8, n_experts=4, top_k=2))
    return layer, moe.attach(layer, moe.balancer("phi_bias", strength=0.1, half_life_tokens=64))


def save_sparse(folder: Path) -> None:
    from safetensors.torch import save_file

    layer, handle = _sparse()
    with handle:
        for _ in range(3):
            layer(_rows()).square().mean().backward()
            handle.step()
        state = handle.state_dict()
    save_file(
        {name: tensor.contiguous() for name, tensor in layer.state_dict().items()},
        folder / "layer.safetensors",
    )
    tensors: dict[str, Any] = {}
    (folder / "handle.json").write_text(json.dumps(_without_tensors(state, "", tensors), indent=1))
    save_file(tensors, folder / "handle.safetensors")


def read_sparse(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    layer, handle = _sparse()
    with handle:
        layer.load_state_dict(load_file(folder / "layer.safetensors"))
        tensors = load_file(folder / "handle.safetensors")
        handle.load_state_dict(_with_tensors(json.loads((folder / "handle.json").read_text()), tensors))
        for _ in range(2):
            layer(_rows()).square().mean().backward()
            handle.step()
        return {"output": layer(_rows()), "biases": handle.biases, "loss": handle.loss}


def _without_tensors(value: Any, path: str, tensors: dict[str, Any]) -> Any:
    """Return a nested state as JSON, with its tensors collected by path."""
    if isinstance(value, dict):
        return {key: _without_tensors(item, f"{path}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {f"${kind}": [_without_tensors(item, f"{path}/{k}", tensors) for k, item in enumerate(value)]}
    if hasattr(value, "detach"):
        tensors[path] = value.detach().contiguous()
        return {"$tensor": path}
    return value


def _with_tensors(value: Any, tensors: dict[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    for kind, make in (("$tuple", tuple), ("$list", list)):
        if kind in value:
            return make(_with_tensors(item, tensors) for item in value[kind])
    return {key: _with_tensors(item, tensors) for key, item in value.items()}


def save_partners(folder: Path) -> None:
    partners = locate("metier.partners")
    game = partners.games.LeverGame(n_levers=2, n_stages=2)
    partners.Population.fresh(game, n_members=2, rng=0).save(folder / "population.safetensors")


def read_partners(folder: Path) -> dict[str, Any]:
    partners = locate("metier.partners")
    game = partners.games.LeverGame(n_levers=2, n_stages=2)
    population = partners.Population.load(folder / "population.safetensors", game)
    return {
        "params": population.params,
        "names": population.names,
        "cross_play": partners.cross_play(list(population), game, episodes=4, rng=0).returns,
    }


def save_run(folder: Path) -> None:
    runs = locate("metier.runs")
    at = folder / "run"
    with runs.Run.create(
        at, study="s", size="tour", config={"rate": 0.5, "names": ["a", "b"]}, seed=3
    ) as run:
        for k in range(3):
            run.cell(f"cell-{k}", lambda k=k: {"drawn": run.rng("cell", k).normal(size=2)}, seconds=0.25)
        run.log(step=1, loss=0.5)
        arrays = {"w": np.arange(4.0), "n": np.ones((2, 3), np.int32)}
        run.save_checkpoint(7, arrays=arrays, state={"step": 7, "rng": run.rng("state").bit_generator.state})
        gain = runs.Measured(value=0.5, low=0.25, high=0.75, level=0.95, n=4, unit="seeds")
        words = {"statement": "It pays.", "source": "ours", "minimum_effect": "1", "command": "c"}
        claim = runs.Claim(id="c", measured=gain, verdict="undecided", needed=9, needed_unit="seeds", **words)
        columns = (runs.Column(name="x"), runs.Column(name="y", kind="estimate"))
        table = runs.Table(id="t", title="T", columns=columns, rows=(("a", gain), ("b", None)))
        series = (runs.Series(name="a", x=(0.0, 1.0), y=(2.0, None)),)
        lines = runs.Lines(x_label="x", y_label="y", series=series)
        figure = runs.Figure(id="f", title="T", caption="C", alt="ten letters", data=lines)
        section = runs.Section(title="S", tables=(table,), figures=(figure,))
        losses = runs.Losses(id="loss", description="d", unit="u", keys=list("abc"), values=[1.0, 2.0, 4.0])
        used = runs.DataUsed(name="d", sha256="0" * 64)
        found = {"claims": (claim,), "sections": (section,), "losses": (losses,), "data": (used,)}
        run.finish(run.result(family="core", title="T", question="Q?", **found))
    for left in at.glob(".*"):
        left.unlink()
    (at / "env.json").write_text(json.dumps(ENVIRONMENT, indent=2) + "\n")


def read_run(folder: Path) -> dict[str, Any]:
    runs = locate("metier.runs")
    at = folder / "run"
    found = {
        name: getattr(runs, f"read_{name}")(at) for name in ("config", "result", "timings", "environment")
    }
    with runs.Run.open(at) as run:
        known = {f"cell-{k}": run.cell(f"cell-{k}", lambda: "computed-again") for k in range(3)}
        checkpoint = run.latest_checkpoint()
        return found | {"known": known, "new": run.cell("cell-9", lambda: 9), "checkpoint": checkpoint}


KINDS = {
    "forecast": (save_forecaster, read_forecaster),
    "multilinear": (save_multilinear, read_multilinear),
    "sparse": (save_sparse, read_sparse),
    "partners": (save_partners, read_partners),
    "run": (save_run, read_run),
}


def save(kind: str) -> None:
    """Write the files of a kind anew with the present code."""
    shutil.rmtree(FILES / kind, ignore_errors=True)
    (FILES / kind).mkdir(parents=True)
    KINDS[kind][0](FILES / kind)


def read(kind: str, folder: Path) -> dict[str, Any]:
    """Return what a copy of the committed files gives."""
    copied = shutil.copytree(FILES / kind, folder / kind)
    return {name: summary(value) for name, value in KINDS[kind][1](copied).items()}

"""A saved forecaster forecasts as before, and nothing on disk is lost or half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from metier import data
from metier.core import InputError
from metier.forecast import ClusterForecaster

SETTINGS: list[dict[str, Any]] = [
    {},
    {"loss": "pinball", "horizon": 2, "n_starts": 1},
    {"strategy": "direct", "horizon": 2, "calendar": ("hour",)},
    {"scope": "cluster", "gate": "mean"},
    {"gate": "none"},
    {"val_size": 0.02},
]


def panel(backend: str = "polars", n_series: int = 30) -> Any:
    drawn = data.simulate_regimes("strong", rng=1, n_series=n_series, n_train=120, n_val=60, n_test=1)
    return drawn.to_panel().steps(0, 180).to_frame(backend=backend)


def fitted(settings: dict[str, Any], backend: str = "polars") -> ClusterForecaster:
    return ClusterForecaster(lags=4, n_clusters=3, shrinkage=0.0, **settings).fit(panel(backend))


@pytest.mark.parametrize("backend", ["polars", "pandas"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_loaded_forecaster_should_equal_the_saved_one(
    settings: dict[str, Any], backend: str, tmp_path: Path
) -> None:
    before = fitted(settings, backend)
    before.save(tmp_path / "model")
    after = ClusterForecaster.load(tmp_path / "model")
    one, two = before.predict(level=[80]), after.predict(level=[80])
    assert type(one) is type(two)
    assert list(one.columns) == list(two.columns)
    assert one.equals(two)
    assert after.decision_ == before.decision_
    assert after.candidates_ == before.candidates_
    assert after.coverage_ == before.coverage_
    assert after.loss_matrix_.tobytes() == before.loss_matrix_.tobytes()
    assert after.assignment_.labels.tolist() == before.assignment_.labels.tolist()
    ours, theirs = before.gate_report_, after.gate_report_
    assert (ours.chosen, ours.flag, ours.by_cluster) == (theirs.chosen, theirs.flag, theirs.by_cluster)


def test_loaded_forecaster_should_fit_again(tmp_path: Path) -> None:
    before = fitted({})
    before.save(tmp_path / "model")
    after = ClusterForecaster.load(tmp_path / "model").fit(panel())
    assert after.predict(3).equals(before.predict(3))


def test_base_models_should_come_back(tmp_path: Path) -> None:
    before = ClusterForecaster(lags=4, n_clusters=2, shrinkage=0.0, model="lightgbm", gate="none").fit(
        panel()
    )
    before.save(tmp_path / "model")
    after = ClusterForecaster.load(tmp_path / "model")
    assert after.predict(2).equals(before.predict(2))
    assert after.predict(2, new_df=panel()).equals(before.predict(2, new_df=panel()))


def test_saved_folder_should_hold_only_the_tail_that_lags_reach(tmp_path: Path) -> None:
    fitted({}).save(tmp_path / "model")
    assert ClusterForecaster.load(tmp_path / "model").served_.panel.n_steps == 4


def test_save_should_replace_a_saved_forecaster_and_leave_nothing_behind(tmp_path: Path) -> None:
    fitted({}).save(tmp_path / "model")
    fitted({"gate": "none"}).save(tmp_path / "model")
    assert ClusterForecaster.load(tmp_path / "model").gate == "none"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_save_should_not_replace_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"save replaces only a saved forecaster.*Choose another folder"):
        fitted({}).save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_failed_save_should_keep_the_older_forecaster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted({}).save(tmp_path / "model")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metier.forecast.persistence.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        fitted({"gate": "none"}).save(tmp_path / "model")
    assert ClusterForecaster.load(tmp_path / "model").gate == "crossfit"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_objects_without_a_text_form_should_be_refused(tmp_path: Path) -> None:
    forecaster = ClusterForecaster(lags=4, n_clusters=2, model=LinearRegression(), gate="none").fit(panel())
    with pytest.raises(InputError, match=r"no pickles.*got an object of type LinearRegression"):
        forecaster.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_missing_folder_should_be_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"load reads a folder that save wrote.*no forecaster\.json in"):
        ClusterForecaster.load(tmp_path / "nowhere")


def test_other_versions_should_be_refused(tmp_path: Path) -> None:
    fitted({}).save(tmp_path / "model")
    path = tmp_path / "model" / "forecaster.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(InputError, match=r"of format 1, got format 99"):
        ClusterForecaster.load(tmp_path / "model")


@pytest.mark.parametrize("name", ["forecaster.json", "arrays.safetensors"])
def test_truncated_files_should_be_one_clear_error(name: str, tmp_path: Path) -> None:
    fitted({}).save(tmp_path / "model")
    path = tmp_path / "model" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"load reads|must be whole"):
        ClusterForecaster.load(tmp_path / "model")


def test_loaded_forecaster_should_say_that_it_cannot_describe_its_clusters(tmp_path: Path) -> None:
    fitted({}).save(tmp_path / "model")
    with pytest.raises(InputError, match="keeps no training data"):
        ClusterForecaster.load(tmp_path / "model").describe()


def test_integer_ids_and_time_should_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    import polars as pl

    frame = pl.DataFrame(
        {
            "unique_id": np.repeat(np.arange(12), 60),
            "ds": np.tile(np.arange(60), 12),
            "y": rng.standard_normal(720),
        }
    )
    before = ClusterForecaster(lags=2).fit(frame)
    before.save(tmp_path / "model")
    after = ClusterForecaster.load(tmp_path / "model").predict(2)
    assert after.equals(before.predict(2))
    assert after.schema["unique_id"] == pl.Int64

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from metier import data
from metier.core import InputError
from metier.data import build_flights
from metier.data.bundled import FILES

SOURCE_VARIABLE = "METIER_FLIGHTS_PARQUET"


@pytest.fixture(scope="module")
def hourly():
    return data.load("flights_hourly")


@pytest.mark.parametrize("name", data.names())
def test_panels_should_be_what_their_registry_entry_says(name):
    entry, panel = data.registry[name], data.load(name)
    assert panel.name == entry.name == name
    assert panel.values.shape == entry.shape
    assert (panel.freq, panel.seasons) == (entry.freq, entry.seasons)
    assert np.isfinite(panel.values).all()
    assert panel.provenance.startswith(entry.title)
    assert entry.traps
    hours = {"h": 1, "8h": 8, "D": 24}[panel.freq]
    assert set(np.diff(panel.stamps)) == {np.timedelta64(hours, "h")}
    assert panel.stamps[0] == np.datetime64("2001-01-01T00")
    assert panel.stamps[-1] + np.timedelta64(hours, "h") == np.datetime64("2001-07-01T00")


def test_every_bundled_file_should_be_registered_with_its_own_hash():
    registered = {file: digest for entry in data.registry.values() for file, digest in entry.files.items()}
    present = {path.name for path in FILES.iterdir()} - {"PROVENANCE.md"}
    assert set(registered) == present
    for file, digest in registered.items():
        assert hashlib.sha256((FILES / file).read_bytes()).hexdigest() == digest
    assert sum((FILES / file).stat().st_size for file in registered) < 400_000


def test_hourly_flights_should_have_the_published_facts(hourly):
    assert hourly.values.shape == (229, 4344)
    assert hourly.values.sum() == 2_999_994
    assert hourly.values.max() == 100
    assert (hourly.values.mean(axis=1) >= 1).sum() == 88


def test_the_busiest_120_airports_should_have_the_published_errors(hourly):
    busy = hourly.top(120).values
    assert busy.mean() == pytest.approx(5.588, abs=0.001)
    assert np.mean(busy == 0) == pytest.approx(0.341, abs=0.001)
    assert np.abs(busy[:, 168:] - busy[:, :-168]).mean() == pytest.approx(1.075, abs=0.001)
    assert np.abs(busy[:, 24:] - busy[:, :-24]).mean() == pytest.approx(1.139, abs=0.001)
    assert np.abs(busy - busy.mean(axis=1, keepdims=True)).mean() == pytest.approx(3.826, abs=0.001)


def test_the_recorded_traps_should_be_true(hourly):
    n_train = int(0.6 * hourly.n_steps)
    train = hourly.select(["GST", "LWB", "ACY"]).values[:, :n_train]
    assert train.sum(axis=1).tolist() == [0, 0, 1]
    others = [key for key in hourly.ids if key not in ("GST", "LWB", "ACY")]
    assert hourly.select(others).values[:, :n_train].sum(axis=1).min() > 1
    at_two = hourly.values.sum(axis=0)[hourly.stamps == np.datetime64("2001-04-01T02")]
    assert at_two < 5
    assert any("GST and LWB" in trap for trap in data.registry["flights_hourly"].traps)


def test_routes_and_hours_should_count_the_same_flights(hourly):
    # Each route starts at one airport; dropped routes can only lower an airport's daily count.
    routes = data.load("flights_routes")
    daily = hourly.values.reshape(229, 181, 24).sum(axis=2)
    origin = np.array([hourly.ids.index(key[:3]) for key in routes.ids])
    kept = np.zeros_like(daily)
    np.add.at(kept, origin, routes.values)
    assert (kept <= daily).all()
    assert kept.sum() == 2_932_996  # 97.8 % of all flights
    assert routes.values.mean(axis=1).min() >= 1
    assert set(data.load("flights_delay").ids) <= set(hourly.ids)


def test_verify_should_tell_a_changed_file_from_a_missing_one(tmp_path):
    assert set(data.verify().values()) == {"ok"}
    folder = shutil.copytree(FILES, tmp_path / "files")
    (folder / "flights_delay.json").unlink()
    changed = folder / "flights_hourly.npy.xz"
    content = bytearray(changed.read_bytes())
    content[1000] ^= 1
    changed.write_bytes(bytes(content))
    state = data.verify(folder=folder)
    assert state.pop("flights_delay.json") == "missing"
    assert state.pop("flights_hourly.npy.xz") == "changed"
    assert set(state.values()) == {"ok"}
    with pytest.raises(
        InputError, match=r"flights_hourly\.npy\.xz must be intact: expected SHA-256 4f4e.*rebuild"
    ):
        data.load("flights_hourly", folder=folder)
    with pytest.raises(InputError, match=r"flights_delay\.json must be intact.*got no such file"):
        data.load("flights_delay", folder=folder)
    assert data.load("flights_routes", folder=folder).n_series == 2818


def test_an_unknown_name_should_name_its_neighbor():
    with pytest.raises(InputError, match=r"got 'flights_hourli'\. Did you mean 'flights_hourly'\?"):
        data.load("flights_hourli")


def test_registry_entries_should_be_plain_and_frozen():
    entry = data.registry["flights_delay"]
    assert entry.to_dict()["files"] == dict(entry.files)
    with pytest.raises(AttributeError):
        entry.name = "other"
    with pytest.raises(TypeError):
        data.registry["mine"] = entry


def test_build_should_refuse_another_file(tmp_path, capsys):
    other = tmp_path / "flights.parquet"
    other.write_bytes(b"not the file")
    with pytest.raises(InputError, match=r"vega-datasets 3\.2\.1: expected SHA-256 dbeb920c"):
        build_flights.read_flights(other)
    assert build_flights.main([str(other), "--out", str(tmp_path / "out")]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_recipes_should_count_and_average_as_written():
    rng = np.random.default_rng(0)
    n = 20_000
    flights = {
        "origin": rng.choice(np.array(["AAA", "BBB", "CCC"], dtype=object), n, p=[0.6, 0.398, 0.002]),
        "destination": rng.choice(np.array(["AAA", "BBB"], dtype=object), n),
        "delay": rng.integers(-30, 90, n),
        "hour": rng.integers(0, build_flights.N_HOURS, n),
    }
    counts, sidecar = build_flights.hourly_departures(flights)
    assert sidecar["ids"] == ["AAA", "BBB", "CCC"]
    assert counts[1, 7] == sum((flights["origin"] == "BBB") & (flights["hour"] == 7))
    assert counts.sum() == n
    delays, sidecar = build_flights.eight_hour_delays(flights)
    assert sidecar["ids"] == ["AAA", "BBB"]
    block = (flights["origin"] == "BBB") & (flights["hour"] // 8 == 5)
    assert delays[1, 5] == round(10 * flights["delay"][block].mean())
    routes, sidecar = build_flights.daily_routes(flights)
    assert sidecar["ids"] == ["AAA-AAA", "AAA-BBB", "BBB-AAA", "BBB-BBB"]
    day = (flights["origin"] == "BBB") & (flights["destination"] == "AAA") & (flights["hour"] // 24 == 9)
    assert routes[2, 9] == day.sum()


@pytest.mark.slow
@pytest.mark.skipif(
    SOURCE_VARIABLE not in os.environ, reason=f"{SOURCE_VARIABLE} does not name the public file"
)
def test_rebuilding_from_the_public_file_should_give_the_same_bytes(tmp_path):
    digests = build_flights.build(Path(os.environ[SOURCE_VARIABLE]), tmp_path)
    registered = {file: digest for entry in data.registry.values() for file, digest in entry.files.items()}
    assert digests == registered
    for file in registered:
        assert (tmp_path / file).read_bytes() == (FILES / file).read_bytes()

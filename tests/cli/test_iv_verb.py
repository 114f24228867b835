import json
import sys

import numpy as np
import polars as pl
import pytest

from metier.bilevel import IVBilevel
from metier.cli.iv_settings import LEARNERS, make_learner
from metier.runs import read_result


def people(n=800):
    rng = np.random.default_rng(0)
    ability = rng.normal(size=n)
    near, age = rng.integers(0, 2, n), rng.integers(20, 60, n)
    educ = 10 + 2 * near + 0.05 * age + ability + rng.normal(size=n)
    wage = 0.5 * educ + 0.02 * age + ability + rng.normal(size=n)
    region = rng.choice(["north", "south", "west"], n)
    return pl.DataFrame({"wage": wage, "educ": educ, "near": near, "age": age, "region": region})


WORDS = ("--outcome", "wage", "--treatment", "educ", "--instruments", "near")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    people().write_csv("people.csv")
    return tmp_path


def test_the_verb_should_say_what_the_library_finds(folder, command):
    code, out, err = command(
        "iv", "people.csv", *WORDS, "--controls", "age,region", "--seed", 3, "--out", "out"
    )
    assert code == 0
    iv = IVBilevel(rng=3).fit("wage", "educ", ["near"], controls=["age", "region"], data=people())
    assert out == iv.summary() + "\n"
    assert "region=south, region=west" in out
    assert "Report: out/report.html" in err
    result = read_result("out")
    table = result.sections[0].tables[0]
    assert table.rows[0][1].value == iv.coef_[0]
    assert result.command.endswith("--controls age,region --seed 3")
    assert "First stage" in (folder / "out/report.html").read_text()


def test_json_should_be_one_document(folder, document):
    code, answer, _ = document("iv", "people.csv", *WORDS, "--level", 90, "--set", "repeats=3")
    assert code == 0
    assert answer["coefficients"][0]["name"] == "educ"
    assert (answer["level"], answer["repeats"]) == (0.9, 3)
    assert answer["over_identification"] is None
    assert answer["anderson_rubin"]["bounded"] is True
    assert answer["folder"] == "runs/iv-people"


def test_a_treatment_as_its_own_instrument_should_be_least_squares_with_infinite_strength(folder, document):
    words = ("--outcome", "wage", "--treatment", "educ", "--instruments", "educ")
    code, answer, _ = document("iv", "people.csv", *words)
    assert code == 0
    assert answer["first_stage"]["rows"][0]["is_weak"] is False
    data = people()
    slope = np.polyfit(data["educ"].to_numpy(), data["wage"].to_numpy(), 1)[0]
    assert answer["coefficients"][0]["coef"] == pytest.approx(slope, abs=1e-3)
    assert read_result(answer["folder"]).sections[1].tables


def test_parquet_groups_weights_and_curves_should_work(folder, document):
    rng = np.random.default_rng(1)
    frame = people().with_columns(
        town=pl.Series(rng.integers(0, 40, 800)), w=pl.Series(rng.uniform(1, 2, 800))
    )
    frame.with_columns(near2=pl.Series(rng.normal(size=800))).write_parquet("people.parquet")
    options = ["--groups", "town", "--weights", "w", "--features", "fourier", "--set", "learner=ridge"]
    words = ["--outcome", "wage", "--treatment", "educ", "--instruments", "near,near2,age"]
    code, answer, _ = document("iv", "people.parquet", *words, *options, "--out", "o")
    assert code == 0
    assert answer["clusters"] == 40
    assert len(answer["coefficients"]) == 6
    assert read_result("o").sections[0].figures[0].kind == "lines"


def test_a_csv_file_should_need_no_dataframe_library(folder, command, document, monkeypatch):
    with_polars = document("iv", "people.csv", *WORDS, "--out", "first")[1]
    for name in ("polars", "pandas", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    code, bare, _ = document("iv", "people.csv", *WORDS, "--out", "second")
    assert code == 0
    assert bare["coefficients"] == with_polars["coefficients"]
    people().write_parquet("people.parquet")
    code, _, err = command("iv", "people.parquet", *WORDS, "--out", "third")
    assert code == 2
    assert 'pip install "' in err


def test_a_wrong_column_should_name_its_neighbors(folder, command):
    code, _, err = command("iv", "people.csv", *WORDS[:-1], "neer")
    assert code == 2
    assert err.splitlines()[-1].endswith("got 'neer'. For 'neer' did you mean 'near'?")


def test_missing_values_should_be_counted_or_dropped(folder, command):
    lines = (folder / "people.csv").read_text().splitlines()
    lines[1] = "NA," + lines[1].split(",", 1)[1]
    lines[2] = "," + lines[2].split(",", 1)[1]
    parts = lines[3].split(",")
    lines[3] = ",".join([parts[0], "NaN", *parts[2:]])
    (folder / "gaps.csv").write_text("\n".join(lines) + "\n")
    code, _, err = command("iv", "gaps.csv", *WORDS)
    assert code == 2
    assert "got 2 in 'wage', 1 in 'educ' (3 of 800 rows). Add --set missing=drop" in err
    code, out, err = command("iv", "gaps.csv", *WORDS, "--set", "missing=drop")
    assert code == 0
    assert "left out 3 of 800 rows with missing values" in err
    assert "797 rows" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--controls", "educ"),
            "a column plays one part: expected different columns, got 'educ' in --treatment",
        ),
        (("--controls", "age,age"), "got 'age' twice in --controls"),
        (("--set", "fold=3"), "metier iv has no setting 'fold'"),
        (("--set", "features=spline"), "Write --features spline."),
        (("--set", "learner=tree"), "--set learner must match"),
        (("--level", "0"), "a level is a coverage in percent"),
        (("--level", "0.95"), "a level is a coverage in percent"),
        (("--features", "spine"), "Did you mean 'spline'?"),
    ],
)
def test_wrong_use_should_be_one_line(folder, command, words, message):
    code, _, err = command("iv", "people.csv", *WORDS, *words)
    assert code == 2
    assert message in err.splitlines()[-1]


def test_named_learners_should_run(folder, document):
    words = ["--set", "learner=ridge", "--set", "control_learner=lasso", "--controls", "age"]
    code, answer, _ = document("iv", "people.csv", *WORDS, *words, "--set", "folds=2")
    assert code == 0
    row = answer["coefficients"][0]
    assert abs(row["coef"] - 0.5) < 5 * row["stderr"]


@pytest.mark.parametrize("name", LEARNERS)
def test_every_named_learner_should_fit(name):
    x = np.random.default_rng(0).normal(size=(200, 2))
    found = make_learner(name, seed=0).fit(x, x[:, 0]).predict(x)
    assert np.corrcoef(found, x[:, 0])[0, 1] > 0.8


def test_an_error_should_be_a_document_too(folder, command):
    code, out, _ = command("iv", "nothing.csv", *WORDS, "--json")
    assert code == 2
    assert json.loads(out)["error"]["kind"] == "input"

"""Reading a file into columns: typed by what the cells say, the same in every installation."""

from __future__ import annotations

import pickle
import shlex
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, strategies as st
from packaging.requirements import Requirement

from metier.core import InputError, MissingExtraError, tables
from metier.core.tables import read_columns

NULLS = ("", "NA", ".")


TEXT = '''id,count,price,gap,region,flag,quoted
a,1,2.5,1,north,true,"x, y"
b,-2,1e3,NA,,false,"say ""so"""
c,30,-0.25,.,south,true,plain
'''


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_columns_of_a_csv_file_should_be_typed(tmp_path, separator):
    path = tmp_path / "a.csv"
    path.write_text(TEXT if separator == "," else TEXT.replace('"x, y"', "z").replace(",", separator))
    found = read_columns(path, null_values=NULLS)
    assert found["count"].dtype == np.int64
    assert found["price"].tolist() == [2.5, 1000.0, -0.25]
    assert np.isnan(found["gap"][1:]).all()
    assert found["region"].tolist() == ["north", None, "south"]
    assert found["flag"].tolist() == [True, False, True]
    assert found["quoted"][1] == 'say "so"'


@pytest.mark.parametrize(
    "cell", [" 1", "1 ", "1_000", "nan", "-inf", "Infinity", "\u0661", "1,5", "0x1f", "1e", "-"]
)
def test_what_only_python_takes_for_a_number_should_stay_text(tmp_path, cell):
    (tmp_path / "a.csv").write_text(f'x,k\n"{cell}",1\n2,2\n', encoding="utf-8")
    assert read_columns(tmp_path / "a.csv")["x"].tolist() == [cell, "2"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["+1", "-2"], [1, -2]),
        (["1.", ".5"], [1.0, 0.5]),
        (["1E3", "2e-1"], [1000.0, 0.2]),
        (["10000000000000000019", "3"], [1e19, 3.0]),
        (["9007199254740993", "1"], [9007199254740993, 1]),
        (["TRUE", "False"], [True, False]),
        (["true", ""], ["true", None]),
    ],
)
def test_numbers_and_truth_values_should_read_as_they_are(tmp_path, cells, expected):
    (tmp_path / "a.csv").write_text("k,x\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    assert read_columns(tmp_path / "a.csv")["x"].tolist() == expected


def test_the_separator_should_be_looked_for_outside_of_quotes(tmp_path):
    (tmp_path / "a.csv").write_text('"income, net, in USD";y\n1;2\n')
    assert list(read_columns(tmp_path / "a.csv")) == ["income, net, in USD", "y"]


def test_line_breaks_in_quotes_and_blank_lines_should_be_no_rows(tmp_path):
    (tmp_path / "a.csv").write_text('a,b\n"x\ny",1\n\nz,2\n')
    assert read_columns(tmp_path / "a.csv")["a"].tolist() == ["x\ny", "z"]


@given(
    st.lists(
        st.tuples(st.integers(-(10**12), 10**12), st.floats(-1e9, 1e9), st.sampled_from(["u", "v w", "Ä"])),
        min_size=1,
        max_size=20,
    )
)
def test_numbers_should_survive(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "a.csv"
    path.write_text("i,x,s\n" + "".join(f"{i},{x!r},{s}\n" for i, x, s in rows), encoding="utf-8")
    found = read_columns(path)
    assert found["i"].tolist() == [i for i, _, _ in rows]
    assert found["x"].tolist() == [x for _, x, _ in rows]
    assert found["s"].tolist() == [s for _, _, s in rows]


def test_a_parquet_file_should_read_alike_by_polars_and_pyarrow(tmp_path, monkeypatch):
    frame = pl.DataFrame(
        {
            "i": pl.Series([1, 2, 3], dtype=pl.Int32),
            "u": pl.Series([1, 2, 2**63 + 5], dtype=pl.UInt64),
            "d": pl.Series(["1.5", "2.25", "-3"]).cast(pl.Decimal(10, 2)),
            "x": [0.5, None, 2.0],
            "s": ["a", None, "b"],
            "b": [True, False, True],
        }
    )
    path = tmp_path / "a.parquet"
    frame.write_parquet(path)
    with_polars = read_columns(path)
    monkeypatch.setattr(tables, "is_installed", lambda name: False)
    by_pyarrow = read_columns(path)
    assert list(with_polars) == list(by_pyarrow) == frame.columns
    for name, values in with_polars.items():
        assert values.dtype == by_pyarrow[name].dtype, name
        np.testing.assert_array_equal(values, by_pyarrow[name], err_msg=name)
    assert with_polars["u"][2] == 2.0**63 + 5
    assert with_polars["d"].tolist() == [1.5, 2.25, -3.0]


def test_a_parquet_file_should_need_one_package_alone(tmp_path, monkeypatch):
    """Without polars it is read by pyarrow: neither pandas nor lightgbm of the same extra is advised."""
    path = tmp_path / "a.parquet"
    pl.DataFrame({"x": [1.0]}).write_parquet(path)
    monkeypatch.setattr(tables, "is_installed", lambda name: False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("metier.core.extras.is_met", lambda requirement: False)
    with pytest.raises(MissingExtraError) as caught:
        read_columns(path)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        named = [Requirement(word).name for word in shlex.split(error.command.split("install ")[1])]
        assert named == ["pyarrow"]
        assert error.command in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n3\n", "readable csv file"),
        ("", "at least one row"),
        ("a,b\n", "at least one row"),
        ("a,b,a\n1,2,3\n", "got 'a' more than once"),
        (",,x\n1,2,3\n", "got '' more than once"),
        ('a,b\n"x"y,2\n', "readable csv file"),
    ],
)
def test_a_file_that_is_no_table_should_be_refused(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_columns(tmp_path / "a.csv")


def test_bytes_that_are_no_text_should_be_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n\xff\xfe,2\n")
    with pytest.raises(InputError, match="readable csv file"):
        read_columns(tmp_path / "a.csv")


def test_a_byte_order_mark_should_not_become_part_of_a_name(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    assert list(read_columns(tmp_path / "a.csv")) == ["a", "b"]


@pytest.mark.parametrize("polars_is_there", [True, False])
def test_a_parquet_file_without_rows_should_be_refused(tmp_path, monkeypatch, polars_is_there):
    pl.DataFrame({"i": pl.Series([], dtype=pl.Int64), "s": pl.Series([], dtype=pl.String)}).write_parquet(
        tmp_path / "a.parquet"
    )
    monkeypatch.setattr(tables, "is_installed", lambda name: polars_is_there)
    with pytest.raises(InputError, match="at least one row"):
        read_columns(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.xlsx", "missing.csv", "folder.csv"])
def test_what_is_no_file_of_ours_should_be_named(tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="one file"):
        read_columns(tmp_path / name)

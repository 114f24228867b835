"""Reading a file into columns: the same columns with and without a dataframe library."""

from __future__ import annotations

import importlib.util

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.core import InputError, tables
from metier.core.tables import read_columns

NULLS = ("", "NA", ".")


@pytest.fixture
def without_polars(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        tables.importlib.util, "find_spec", lambda name: None if name == "polars" else find(name)
    )


def both(path, monkeypatch):
    with_polars = read_columns(path, null_values=NULLS)
    find = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(
            tables.importlib.util, "find_spec", lambda name: None if name == "polars" else find(name)
        )
        return with_polars, read_columns(path, null_values=NULLS)


def assert_same(first, second):
    assert list(first) == list(second)
    for name, values in first.items():
        assert values.dtype == second[name].dtype, name
        np.testing.assert_array_equal(values, second[name], err_msg=name)


TEXT = '''id,count,price,gap,region,flag,quoted
a,1,2.5,1,north,true,"x, y"
b,-2,1e3,NA,,false,"say ""so"""
c,30,-0.25,.,south,true,plain
'''


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_file_should_read_alike_with_and_without_polars(tmp_path, monkeypatch, separator):
    path = tmp_path / "a.csv"
    path.write_text(TEXT if separator == "," else TEXT.replace('"x, y"', "z").replace(",", separator))
    first, second = both(path, monkeypatch)
    assert_same(first, second)
    assert first["count"].dtype == np.int64
    assert first["price"].tolist() == [2.5, 1000.0, -0.25]
    assert np.isnan(first["gap"][1:]).all()
    assert first["region"].tolist() == ["north", None, "south"]
    assert first["flag"].dtype == bool
    assert first["quoted"][1] == 'say "so"'


@given(
    st.lists(
        st.tuples(st.integers(-(10**12), 10**12), st.floats(-1e9, 1e9), st.sampled_from(["u", "v w", "Ä"])),
        min_size=1,
        max_size=20,
    )
)
def test_numbers_should_survive_both_readers(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "a.csv"
    path.write_text("i,x,s\n" + "".join(f"{i},{x!r},{s}\n" for i, x, s in rows), encoding="utf-8")
    with pytest.MonkeyPatch.context() as monkeypatch:
        first, second = both(path, monkeypatch)
    assert_same(first, second)
    assert second["i"].tolist() == [i for i, _, _ in rows]
    assert second["x"].tolist() == [x for _, x, _ in rows]
    assert second["s"].tolist() == [s for _, _, s in rows]


def test_a_parquet_file_should_read_alike_by_polars_and_pyarrow(tmp_path, monkeypatch):
    frame = pl.DataFrame(
        {
            "i": pl.Series([1, 2, 3], dtype=pl.Int32),
            "x": [0.5, None, 2.0],
            "s": ["a", None, "b"],
            "b": [True, False, True],
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    assert_same(*both(tmp_path / "a.parquet", monkeypatch))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n3\n", "readable csv file"),
        ("", "at least one row"),
        ("a,b\n", "at least one row"),
    ],
)
def test_a_file_that_is_no_table_should_be_refused_alike(tmp_path, without_polars, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_columns(tmp_path / "a.csv")


def test_bytes_that_are_no_text_should_be_refused(tmp_path, without_polars):
    (tmp_path / "a.csv").write_bytes(b"a,b\n\xff\xfe,2\n")
    with pytest.raises(InputError, match="readable csv file"):
        read_columns(tmp_path / "a.csv")


def test_a_byte_order_mark_should_not_become_part_of_a_name(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    first, second = both(tmp_path / "a.csv", monkeypatch)
    assert list(first) == list(second) == ["a", "b"]


@pytest.mark.parametrize("name", ["a.xlsx", "missing.csv", "folder.csv"])
def test_what_is_no_file_of_ours_should_be_named(tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="one file"):
        read_columns(tmp_path / name)

import numpy as np
import pytest
from pydantic import ValidationError

from metier.runs import (
    BarGroup,
    Bars,
    Claim,
    Column,
    Figure,
    Heatmap,
    Histogram,
    HistogramGroup,
    Lines,
    Losses,
    Measured,
    Result,
    Section,
    Series,
    Table,
)


def lines(**changes):
    data = Lines(
        x_label="x", y_label="y", series=(Series(name="a", x=np.arange(3), y=[1, np.nan, np.float32(2)]),)
    )
    return Figure(
        **({"id": "f", "title": "t", "caption": "c", "alt": "a rising line", "data": data} | changes)
    )


def result(**changes):
    base = {"study": "s", "family": "f", "size": "tour", "seed": 0, "title": "t", "question": "q"}
    return Result(**(base | changes))


def test_result_should_round_trip_through_its_text():
    table = Table(
        id="t",
        title="t",
        columns=(Column(name="who"), Column(name="gain", kind="estimate"), Column(name="n", kind="integer")),
        rows=(
            ("a", Measured(value=0.1, low=0, high=0.2, level=0.95, n=9, unit="days"), np.int64(3)),
            ("b", None, np.nan),
        ),
    )
    before = result(sections=(Section(title="s", tables=(table,), figures=(lines(),)),))
    after = Result.model_validate_json(before.to_json())
    assert after == before
    assert after.to_json() == before.to_json()
    assert after.sections[0].tables[0].rows[1] == ("b", None, None)
    assert after.sections[0].figures[0].data.series[0].y == (1.0, None, 2.0)


def test_stamps_should_stay_text():
    stamps = np.datetime_as_string(np.arange("2001-01-01", "2001-01-03", dtype="datetime64[D]"))
    assert Series(name="a", x=stamps, y=[1, 2]).x == ("2001-01-01", "2001-01-02")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Series(name="a", x=[1, 2], y=[1]), "series 'a': y has 1 values, x has 2"),
        (lambda: Series(name="a", x=[1], y=[1], low=[0]), "a band needs both low and high"),
        (lambda: Series(name="a", x=[1], y=[np.inf]), "finite"),
        (lambda: Measured(value=1, low=0, high=2), "an interval needs its level"),
        (lambda: Measured(value=1, level=0.9), "a level needs an interval"),
        (lambda: Measured(value=1, low=2, high=1, level=0.9), r"\[2.0, 1.0\] is empty"),
        (lambda: Measured(value=np.nan), "finite"),
        (
            lambda: Bars(categories=["a"], value_label="v", groups=(BarGroup(name="g", values=[1, 2]),)),
            "2 entries",
        ),
        (
            lambda: Heatmap(row_labels=["a"], column_labels=["b"], values=((1, 2),), value_label="v"),
            "labels say 1 x 1",
        ),
        (lambda: Histogram(x_label="x", edges=[0, 0], groups=()), "edges must increase"),
        (
            lambda: Histogram(x_label="x", edges=[0, 1], groups=(HistogramGroup(name="g", counts=[1, 2]),)),
            "2 counts, 1 bins",
        ),
        (
            lambda: Table(id="t", title="t", columns=(Column(name="a"),), rows=((1, 2),)),
            "row 0 has 2 cells for 1 columns",
        ),
        (
            lambda: Losses(id="l", description="", unit="day", keys=["a", "a"], values=[1, 2]),
            "as many distinct keys",
        ),
        (
            lambda: Losses(id="l", description="", unit="day", keys=["a"], values=[1], groups=["g"]),
            "groups are given exactly when",
        ),
        (lambda: lines(alt="short"), "at least 10 characters"),
        (lambda: lines(id="Bad Id"), "String should match pattern"),
        (lambda: result(colour="red"), "Extra inputs are not permitted"),
        (lambda: result(schema_version=2), "Input should be 1"),
        (
            lambda: result(sections=(Section(title="s", figures=(lines(), lines())),)),
            "figure ids must be unique, these repeat: f",
        ),
    ],
)
def test_wrong_record_should_be_refused(make, text):
    with pytest.raises(ValidationError, match=text):
        make()


def test_needed_should_say_of_what():
    fields = {
        "id": "c",
        "statement": "s",
        "source": "ours",
        "minimum_effect": "1 %",
        "command": "metier run s",
    }
    with pytest.raises(ValidationError, match="needed=40 does not say of what"):
        Claim(**fields, measured=Measured(value=1), verdict="undecided", needed=40)
    assert (
        Claim(
            **fields, measured=Measured(value=1), verdict="undecided", needed=40, needed_unit="seeds"
        ).needed
        == 40
    )


def test_records_should_be_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        result().title = "other"

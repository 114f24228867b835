from html.parser import HTMLParser
from itertools import pairwise

import pytest
from sample_records import headline, sample_result

from metier.core.errors import InputError
from metier.report import Entry, render_page, write_report
from metier.report.page import TEMPLATES, gauge, inline, load_strip, whisker
from metier.runs import Column, Figure, Measured, Paid, Picture, Result, Run, Section, Specialized, Table

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Collects tags with their attributes and insists that every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def text():
    environment = {
        "metier": "0.1.0",
        "commit": "a" * 40,
        "python": "CPython 3.11",
        "packages": {"numpy": "2.0"},
    }
    entries = [
        Entry(result=sample_result(), environment=environment, timings={"seconds": 61.0}),
        Entry(result=sample_result(study="other", title="Second"), environment=environment),
    ]
    return render_page(entries, title="metier tour")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_page_should_be_well_formed_html(page):
    assert [tag for tag, _ in page.tags[:2]] == ["html", "head"]
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1


def test_page_should_hold_no_script_and_load_nothing(text, page):
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("img")
    for _, attrs in page.tags:
        for name in ("src", "href", "action", "data"):
            assert (attrs.get(name) or "#").startswith("#")
        assert not any(name.startswith("on") for name in attrs)
    outside = text.replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in outside
    assert "https://" not in outside
    assert "@import" not in text
    assert "url(" not in TEMPLATES.joinpath("style.css").read_text()


def test_ids_should_be_unique_and_links_should_lead_to_them(text, page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [attrs["href"][1:] for _, attrs in page.tags if attrs.get("href")]
    targets += [part.split(")")[0] for part in text.split("url(#")[1:]]
    assert targets
    assert set(targets) <= set(ids)


def test_every_figure_should_have_alt_text_and_a_caption(page):
    figures = [figure for part in sample_result().sections for figure in part.figures]
    labels = [attrs["aria-label"] for attrs in page.all("div") if attrs.get("role") == "img"]
    assert labels == [figure.alt for figure in figures] * 2
    assert len(page.all("figcaption")) == len(page.all("figure")) == 2 * len(figures)


def test_headings_should_not_skip_a_level(page):
    levels = [int(tag[1]) for tag, _ in page.tags if tag in {"h1", "h2", "h3", "h4"}]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_verdicts_should_be_told_by_words(page):
    said = " ".join(page.words)
    for verdict in ("holds", "undecided", "does not hold", "equivalent", "pays"):
        assert verdict in said
    assert "About 4,200 hours would decide." in said
    assert "3.1 %" in said
    assert "[1.2, 5.0]" in said


def test_user_text_should_be_escaped(text):
    assert "specialists &lt;beat&gt; the generalist &amp; keep" in text
    assert "<beat>" not in text
    assert inline("`a<b>` <script>") == "<code>a&lt;b&gt;</code> &lt;script&gt;"


def test_page_should_be_light(text):
    assert len(text.encode()) < 3_000_000 / 3


def test_equal_results_should_give_equal_pages():
    """Equal figures are drawn equally: tests/report/test_report_figures.py."""
    one, other = (Entry(result=sample_result(sections=sample_result().sections[:1])) for _ in range(2))
    assert render_page([one]) == render_page([other])


def test_undecided_headline_should_say_how_much_would_decide():
    gain = Measured(value=0.0, low=-1.0, high=1.0, level=0.9, n=9, unit="seeds")
    paid = Paid(text="Too few.", gain=gain, verdict="undecided", needed=1234, needed_unit="seeds")
    result = sample_result(headline=headline().model_copy(update={"paid": paid}), sections=(), claims=())
    assert "About 1,234 seeds would decide." in render_page([Entry(result=result)])


def test_result_without_headline_or_claims_should_still_make_a_page():
    Page(render_page([Entry(result=sample_result(headline=None, claims=(), sections=(), notes=(), data=()))]))


def test_no_entry_should_be_refused():
    with pytest.raises(InputError, match="a report needs a finished run"):
        render_page([])


def test_small_drawings_should_place_their_numbers():
    paid = Paid(text="", gain=Measured(value=1.0, low=0.0, high=2.0, level=0.9), verdict="undecided")
    assert 'cx="100.0"' in whisker(paid)
    strip = load_strip([3, 1], ["a", "b"])
    assert 'aria-label="load: a 75 %, b 25 %"' in strip
    assert 'width="149.0"' in strip
    assert load_strip([], []) == ""
    bar = gauge(Specialized(text="", information=0.5, null_mean=0.25, ceiling=1.0))
    assert 'width="100.0"' in bar
    assert 'x1="50.0"' in bar
    assert gauge(Specialized(text="")) == ""


def test_one_sided_gain_should_be_drawn_to_the_edge():
    paid = Paid(text="", gain=Measured(value=1.0, low=0.5, level=0.9), verdict="pays")
    assert 'x2="200"' in whisker(paid)


def test_write_report_should_read_runs_and_make_the_folder(tmp_path):
    with Run.create(tmp_path / "a", study="sample", size="tour", config={}, seed=0) as run:
        run.finish(sample_result(sections=()))
    page = write_report([tmp_path / "a"], tmp_path / "new" / "report.html")
    text = page.read_text(encoding="utf-8")
    assert "What it ran on" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(("words", "expected"), [("x" * 60, None), ("x" * 61, "prose")])
def test_tables_with_sentences_should_stack_on_phones(words, expected):
    columns = (Column(name="cluster"), Column(name="gain", unit="%", kind="number"), Column(name="in full"))
    table = Table(id="t", title="T", columns=columns, rows=(("A", 1.0, words),))
    result = Result(
        study="s",
        family="core",
        size="tour",
        seed=0,
        title="One",
        question="Why?",
        sections=(Section(title="S", tables=(table,)),),
    )
    tags = Page(render_page([Entry(result=result)])).tags
    assert next(attrs.get("class") for tag, attrs in tags if tag == "table") == expected
    names = [attrs["data-name"] for tag, attrs in tags if tag == "td" and "data-name" in attrs]
    assert names == ["gain, %", "in full"]
    style = (TEMPLATES / "style.css").read_text()
    assert ".prose thead { display: none; }" in style[style.index("max-width: 36rem") :]


def test_a_picture_should_be_shown_once_from_within_the_page():
    """An animated episode needs no file beside the page."""
    data = Picture(media_type="image/gif", base64="R0lGODlhAQABAAAAACw=", width=1, height=1)
    figure = Figure(id="film", title="A film", caption="One episode.", alt="two cooks at work", data=data)
    result = sample_result(sections=(Section(title="Film", figures=(figure,)),))
    shown = Page(render_page([Entry(result=result)]))
    assert [image["src"] for image in shown.all("img")] == ["data:image/gif;base64,R0lGODlhAQABAAAAACw="]
    with pytest.raises(ValueError, match="base64"):
        Picture(media_type="image/gif", base64="<script>", width=1, height=1)

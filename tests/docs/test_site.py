"""The site builds strictly, and the API page has an entry for every public name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys

import pytest
from markdown.extensions.toc import slugify
from markdown_blocks import ROOT

ROOMS = (
    "metier.core",
    "metier.forecast",
    "metier.forecast.metrics",
    "metier.moe",
    "metier.data",
    "metier.multi_index",
    "metier.runs",
    "metier_studies",
    "metier.report",
)


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("api_reference", ROOT / "docs/hooks/api_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(hook):
    return hook.on_page_markdown((ROOT / "docs/api.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_should_have_an_entry(page, room):
    module = importlib.import_module(room)
    names = [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    headings = set(re.findall(r"^### (\S+)$", page, re.MULTILINE))
    assert names
    assert [name for name in names if f"{room}.{name}" not in headings] == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_should_have_a_docstring(room):
    module = importlib.import_module(room)
    things = {name: getattr(module, name) for name in module.__all__}
    silent = [n for n, t in things.items() if (inspect.isclass(t) or inspect.isroutine(t)) and not t.__doc__]
    assert silent == []


def test_names_of_the_front_door_should_be_on_the_page(page):
    import metier

    assert [name for name in metier.__all__ if f"`{name}`" not in page and f"metier.{name}" not in page] == []


def test_no_mark_should_be_left(page):
    assert "<!-- api" not in page


def test_an_entry_should_hold_signature_sections_and_example(hook):
    from metier.core import compare_paired

    entry = "\n".join(hook.entry("compare_paired", compare_paired, title="metier.core.compare_paired"))
    assert "### metier.core.compare_paired\n" in entry
    assert "compare_paired(a, b, *, dependence='independent', se='ewc', level=0.95)" in entry
    assert "**Args**\n\n- `a`: Losses of the candidate, shape (n,).\n- `b`:" in entry
    assert "**Example**\n\n```pycon\n>>> result = compare_paired(" in entry
    assert "**Source:** Liang and Zeger (1986)" in entry


def test_an_entry_of_a_class_should_hold_its_methods(hook):
    from metier.forecast import ClusterForecaster

    entry = "\n".join(hook.entry("ClusterForecaster", ClusterForecaster, title="x"))
    assert {"fit", "predict", "cross_validation", "decision_"} <= set(
        re.findall(r"^#### ClusterForecaster\.(\w+)$", entry, re.MULTILINE)
    )
    assert "set_predict_request" not in entry
    assert "    model='ridge',\n" in entry
    assert "- `id_col`, `time_col`, `target_col`: column names." in entry


def test_a_class_made_by_its_methods_should_show_no_constructor(hook):
    from metier import Assignment

    entry = "\n".join(hook.entry("Assignment", Assignment, title="x"))
    assert "Assignment(" not in entry.split("**Example**")[0]
    assert "```python\nfrom_labels(labels, n_specialists=None)\n```" in entry


GENERATED = {"api.md", "results.md"}


def anchors(page):
    """What a link to a page may name after `#`."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {slugify(re.sub(r"[`*]", "", heading), "-") for heading in headings}


def broken_links(page):
    """Relative links of a page to files or headings that do not exist."""
    links = re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text(encoding="utf-8"))
    broken = []
    for name, anchor in links:
        target = page.parent / name if name else page
        known = target.exists() and (not anchor or target.name in GENERATED or anchor in anchors(target))
        broken += [] if known else [f"{name}#{anchor}" if anchor else name]
    return broken


def test_links_and_navigation_should_name_pages_that_exist(tmp_path):
    """The usual faults of a strict build, found without building."""
    pages = sorted((ROOT / "docs").rglob("*.md"))
    assert {page.name: broken_links(page) for page in pages if broken_links(page)} == {}
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    named = re.findall(r"[\w/]+\.md", navigation)
    assert sorted(named) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in pages)
    (tmp_path / "a.md").write_text(
        "# One `two`\n[u](b.md), [v](a.md#one-two), [w](#three), [x](a.md), [y](https://example.com/q.md)"
    )
    assert broken_links(tmp_path / "a.md") == ["b.md", "#three"]


@pytest.mark.slow
def test_site_should_build_strictly(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "site/api/index.html").read_text(encoding="utf-8")
    assert "metier.forecast.ClusterForecaster" in api
    assert "hooks" not in {path.name for path in (tmp_path / "site").iterdir()}

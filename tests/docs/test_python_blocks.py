"""Every Python block of the README and the docs runs, and prints what the page says it prints."""

from __future__ import annotations

import contextlib
import doctest
import io

import pytest
from markdown_blocks import PAGES, blocks_of, page_name

PYTHON_PAGES = [page for page in PAGES if any(block.language == "python" for block in blocks_of(page))]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run_page(page):
    """Run a page's blocks in one namespace; yield each with what it printed."""
    namespace = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.language != "python":
            continue
        printed = io.StringIO()
        # Empty lines put the block at its own line numbers in tracebacks.
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        yield block, printed.getvalue()


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=page_name)
def test_python_blocks_should_run_and_print_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checker = doctest.OutputChecker()
    for block, printed in run_page(page):
        if block.output is not None:
            said = f"{page_name(page)}, line {block.line}, printed:\n{printed}"
            assert checker.check_output(block.output, printed, OPTIONS), said
    assert not list(tmp_path.glob("**/*.py"))


def test_pages_should_hold_python_blocks():
    assert {"README.md", "docs/forecasting.md", "docs/core.md", "docs/data.md"} <= set(
        map(page_name, PYTHON_PAGES)
    )

"""Every command the docs show exists: verbs, options, studies, configuration keys, make targets."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from markdown_blocks import PAGES, ROOT, blocks_of, page_name

from metier.cli.app import build_app
from metier.cli.options import parse_settings
from metier.core.registry import load_study, registry
from metier.runs import resolve_config

COMMAND = typer.main.get_command(build_app())
SHELL = {"bash", "sh", "console"}
INLINE = re.compile(r"`((?:metier|make) [^`]+)`")
SYNOPSIS = re.compile(r"[|\[\]…]")


def command_lines(page):
    """Return the `metier ...` and `make ...` lines of a page's shell blocks and inline code."""
    lines = [
        re.sub(r"\s+#.*", "", line.strip().removeprefix("$ "))
        for block in blocks_of(page)
        if block.language in SHELL
        for line in block.code.splitlines()
    ]
    inline = [text for text in INLINE.findall(page.read_text(encoding="utf-8")) if not SYNOPSIS.search(text)]
    return sorted({line for line in [*lines, *inline] if line.split()[:1] in (["metier"], ["make"])})


CASES = [(page, line) for page in PAGES for line in command_lines(page)]
METIER = [case for case in CASES if case[1].startswith("metier")]
MAKE = [case for case in CASES if case[1].startswith("make")]


def check_metier(line):
    """Parse a line as the command would, without running it."""
    words = shlex.split(line, comments=True)[1:]
    if words[0].startswith("-"):
        assert {"--help", "-h", "--version"} & set(words)
        return
    verb, *rest = words
    assert verb in COMMAND.commands, f"no verb {verb!r}"
    if {"--help", "-h"} & set(rest):
        return
    if not rest and any(parameter.required for parameter in COMMAND.commands[verb].params):
        return  # The verb's name alone, in running text.
    context = COMMAND.commands[verb].make_context(verb, rest)
    check_studies(verb, context.params)


def check_studies(verb, params):
    """Refuse a study or a configuration key that does not exist; capitals stand for any."""
    named = params.get("only") or [] if verb == "tour" else [params["study"]] if verb == "run" else []
    for name in named:
        if not name.isupper():
            assert name in registry(), f"no study {name!r}"
            if verb == "run":
                resolve_config(load_study(name), params["size"], parse_settings(params["settings"] or []))


@pytest.mark.parametrize(("page", "line"), METIER, ids=[f"{page_name(p)}: {line}" for p, line in METIER])
def test_metier_line_should_parse(page, line):
    check_metier(line)


@pytest.mark.parametrize(("page", "line"), MAKE, ids=[f"{page_name(p)}: {line}" for p, line in MAKE])
def test_make_line_should_name_targets(page, line):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    asked = [word for word in shlex.split(line, comments=True)[1:] if "=" not in word]
    assert asked
    assert set(asked) <= targets


def test_docs_should_show_commands():
    assert len(METIER) > 10
    assert {"make tour", "make test"} <= {line for _, line in MAKE}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("metier rnu x", "no verb 'rnu'"),
        ("metier run STUDY --sze tour", "No such option: --sze"),
        ("metier run nothing", "no study 'nothing'"),
        ("metier tour --only nothing", "no study 'nothing'"),
    ],
)
def test_wrong_lines_should_be_found(line, fault):
    with pytest.raises(Exception, match=fault):
        check_metier(line)

"""Every call of a public name that was accepted when the contract was frozen is accepted today."""

from __future__ import annotations

import pytest
from contract_differences import MISSING, Difference, assert_as_frozen, entries_of, frozen
from contract_names import intended, locate, place_of
from contract_signatures import calls_refused, described, signature_differences

SIGNATURES = frozen("signatures")
PARTS = {part: frozen(part) for part in ("signatures", "snippets", "verbs", "files", "records")}


@pytest.mark.parametrize("name", SIGNATURES)
def test_public_name_should_be_called_as_before(name):
    expected = SIGNATURES[name]
    try:
        value = locate(name)
    except LookupError:
        found = [Difference("", expected["kind"], MISSING)]
    else:
        found = list(signature_differences(expected, value))
    assert_as_frozen("signatures", name, found)


def test_intended_differences_should_name_what_is_frozen_and_why():
    wrong = []
    for entry in intended()["difference"]:
        if not entry["reason"] or entry["name"] not in PARTS[entry["part"]]:
            wrong.append(entry)
        if set(entry) - {"part", "name", "path", "reason"}:
            wrong.append(entry)
    assert wrong == []


@pytest.mark.parametrize("name", intended()["moved"])
def test_moved_names_should_be_gone_from_their_old_place(name):
    entry = intended()["moved"][name]
    assert entry["reason"]
    old, _, last = name.rpartition(".")
    names = [n for n in SIGNATURES if n == name or n.startswith(f"{name}.")]
    assert names, f"{name} was not public"
    try:
        module = __import__(old or name, fromlist=["_"])
    except ModuleNotFoundError:
        return
    assert not hasattr(module, last), f"{name} is where it was: remove it from [moved] of intended.toml"


def parameters(text):
    """Return the described parameters of `def f(TEXT)`."""
    space = {}
    exec(f"def f({text}): ...", space)
    return described(space["f"])["parameters"]


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ("a, *, b=1", "a, *, b=2", "f.b.default"),
        ("a, *, b=1", "a, *, b", "f.b.default"),
        ("a, *, b=1", "a", "f.b"),
        ("a, b", "b, a", "f.order"),
        ("a, b", "c, a, b", "f.order"),
        ("a, b", "a, *, b", "f.b.kind"),
        ("a", "a, b", "f.b"),
        ("a, **k", "a", "f.k"),
    ],
)
def test_refused_calls_should_be_found(before, after, path):
    assert path in [one.path for one in calls_refused(parameters(before), parameters(after), "f")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a, *, b=1", "a, *, b=1, c=2"),
        ("a, *, b=1", "a, b=1"),
        ("a", "a, b=None"),
        ("a, /", "a"),
        ("*a", "*rest"),
        ("a", "a, *, b=1, **k"),
    ],
)
def test_grown_signatures_should_pass(before, after):
    assert list(calls_refused(parameters(before), parameters(after), "f")) == []


def test_entries_should_be_those_of_a_part_and_a_name(monkeypatch):
    entry = {"part": "verbs", "name": "iv", "path": "code", "reason": "r"}
    monkeypatch.setitem(intended(), "difference", [entry])
    assert entries_of("verbs", "iv") == [entry]
    assert entries_of("records", "iv") == []
    assert_as_frozen("verbs", "iv", [Difference("code", 0, 3)])
    for found in ([], [Difference("document.a", 1, 2)]):
        with pytest.raises(AssertionError, match="verbs of iv"):
            assert_as_frozen("verbs", "iv", found)


def test_places_should_follow_the_longest_moved_name(monkeypatch):
    moved = {"metier.studies": {"to": "apart"}, "metier.studies.execute": {"to": "apart.lib.run"}}
    monkeypatch.setitem(intended(), "moved", moved)
    assert place_of("metier.studies.execute") == "apart.lib.run"
    assert place_of("metier.studies.Study.sizes") == "apart.Study.sizes"
    assert place_of("metier.core.judge") == "metier.core.judge"

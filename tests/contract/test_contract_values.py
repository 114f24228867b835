"""The values of public functions and estimators, the answers of verbs, and what saved files give."""

from __future__ import annotations

import pytest
from contract_differences import assert_as_frozen, differences, frozen, tolerance
from contract_files import FILES, KINDS, read
from contract_handwritten import SLOW, UNEXECUTED, WITHOUT
from contract_snippets import values_of
from contract_verbs import SCENARIOS, SLOW as SLOW_VERBS, answers

SIGNATURES, SNIPPETS = frozen("signatures"), frozen("snippets")
VERBS, SAVED = frozen("verbs"), frozen("files")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in SNIPPETS]
)
def test_value_should_be_as_frozen(name, strict):
    found = differences(SNIPPETS[name]["values"], values_of(SNIPPETS[name]), tolerance(name, strict))
    assert_as_frozen("snippets", name, list(found))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW_VERBS else []) for n in VERBS]
)
def test_verb_should_answer_as_frozen(name, strict):
    rtol = tolerance(f"verb {name}", strict)
    assert_as_frozen("verbs", name, list(differences(VERBS[name], answers(name), rtol, grows=True)))


@pytest.mark.parametrize("kind", SAVED)
def test_saved_files_should_give_what_they_gave(kind, strict, tmp_path):
    rtol = tolerance(f"file {kind}", strict)
    assert_as_frozen("files", kind, list(differences(SAVED[kind], read(kind, tmp_path), rtol, grows=True)))


def test_every_verb_and_kind_of_file_should_be_frozen():
    assert set(VERBS) == set(SCENARIOS)
    assert set(SAVED) == set(KINDS)
    assert max(path.stat().st_size for path in FILES.rglob("*") if path.is_file()) < 50_000


def types_in(value):
    """Return the names of the public classes that a frozen value holds."""
    if isinstance(value, list):
        return {name for item in value for name in types_in(item)}
    if not isinstance(value, dict):
        return set()
    return {value.get("type")} | {name for item in value.values() for name in types_in(item)}


def test_every_public_name_should_have_a_value_or_a_reason():
    shown = {name for snippet in SNIPPETS.values() for name in types_in(snippet["values"])}
    owners = {name: set() for name in SIGNATURES}
    for snippet in SNIPPETS:
        for name in owners:
            if snippet == name or snippet.startswith(f"{name}."):
                owners[name].add(snippet)
    used = {public for snippet in SNIPPETS.values() for public in snippet["uses"].values()}
    silent = []
    for name, expected in SIGNATURES.items():
        short = name.rpartition(".")[2]
        twins = {other for other in SIGNATURES if other.rpartition(".")[2] == short}
        # Exceptions are shown by the tests of what raises them; constants and mappings by their signatures.
        plain = expected["kind"] not in ("class", "function") or "builtins.Exception" in expected.get(
            "is", ()
        )
        if not plain and not any(owners[twin] or twin in used for twin in twins) and short not in shown:
            silent.append(name)
    assert sorted(silent) == sorted(WITHOUT)
    assert all(WITHOUT.values())
    assert all(UNEXECUTED.values())
    assert set(SLOW) <= set(SNIPPETS)

"""`metier exponents`: certified numbers for people and programs, errors in one line."""

from __future__ import annotations

from metier.multi_index import activation_names


def test_name_should_be_certified(command):
    code, out, _ = command("exponents", "tanh")
    assert code == 0
    assert "tanh: certified" in out
    assert "noise sensitivity 2, strong recovery 1" in out
    assert "weak recovery is trivial" in out


def test_expression_should_give_one_document(document):
    code, answer, _ = document("exponents", "x**4-6*x**2+3", "--onset", "--normalize")
    assert code == 0
    assert answer["noise_sensitivity"] == 2
    assert answer["status"] == "certified"
    assert {c["state"] for c in answer["coefficients"]} == {"certified zero", "certified nonzero"}
    assert 1e-5 < answer["onset_snr"] < 1e-3


def test_table_should_hold_every_name(command, document):
    code, out, _ = command("exponents")
    assert code == 0
    assert all(name in out for name in activation_names())
    code, answer, _ = document("exponents")
    assert [row["name"] for row in answer["activations"]] == list(activation_names())
    assert next(row for row in answer["activations"] if row["name"] == "sign")["noise_sensitivity"] == "inf"


def test_bad_expressions_should_be_one_line(command, document):
    code, _, err = command("exponents", "__import__('os')")
    assert code == 2
    assert err.count("\n") == 1
    assert "a name or an expression in x" in err
    code, answer, _ = document("exponents", "1/x")
    assert code == 2
    assert answer["error"]["kind"] == "input"


def test_onset_without_an_activation_should_be_refused(command):
    code, _, err = command("exponents", "--onset")
    assert code == 2
    assert "--onset without one" in err

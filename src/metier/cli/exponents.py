"""`metier exponents ACTIVATION`: how many samples per dimension an activation needs, certified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from metier.cli.answer import Answer, columns
from metier.cli.options import AsJson
from metier.core import InputError

if TYPE_CHECKING:
    from metier.multi_index import Exponents


def exponents(
    activation: Annotated[
        str | None,
        typer.Argument(
            help="A name such as tanh or He4, or an expression in x; without it, the table of names.",
            show_default=False,
        ),
    ] = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Divide by the standard deviation first.")
    ] = False,
    onset: Annotated[
        bool, typer.Option("--onset", help="Also find the snr below which the law holds within 10 %.")
    ] = False,
    as_json: AsJson = False,
) -> Answer:
    """Certify how hard an activation is to learn from."""
    from metier.multi_index import exponents as certify

    if activation is None and onset:
        raise InputError(
            "the onset is of one activation",
            expected="an activation beside --onset",
            got="--onset without one",
            next_step="For example: metier exponents He4 --onset",
        )
    if activation is None:
        return _table(normalize=normalize, as_json=as_json)
    found = certify(activation, normalize=normalize)
    document: dict[str, Any] = found.to_dict()
    text = found.summary()
    if onset:
        at = found.onset_snr
        document["onset_snr"] = at if at == at else None
        text += (
            f"\n  the law holds within 10 % below snr {at:.3g}" if at == at else "\n  no onset: no such law"
        )
    return Answer(document=document, text=text + _law(found), as_json=as_json)


def _law(found: Exponents) -> str:
    constant = found.constant
    if constant is None:
        return ""
    import math

    if found.coefficient(1, 1).zero is not True:
        return "\n  weak recovery is trivial: E[sigma(z) z] is not 0"
    factor = math.factorial(constant.power) / constant.mid**2
    return f"\n  as snr -> 0, weak recovery needs {factor:.6g} snr^-{constant.power} samples per dimension"


def _table(*, normalize: bool, as_json: bool) -> Answer:
    from metier.multi_index import nse_table
    from metier.multi_index.profile import exponent_text

    rows = nse_table(normalize=normalize)
    header = ["ACTIVATION", "INFORMATION", "GENERATIVE", "KAPPA 1..4", "NOISE", "STRONG", "C", "STATUS"]
    lines = [
        [
            row.name,
            exponent_text(row.information),
            exponent_text(row.generative),
            " ".join(map(exponent_text, row.kappa)),
            exponent_text(row.noise_sensitivity),
            exponent_text(row.strong_recovery),
            f"{row.constant:.8g}",
            row.status,
        ]
        for row in rows
    ]
    document = {"activations": [row.to_dict() for row in rows]}
    return Answer(document=document, text=columns([header, *lines]), as_json=as_json)

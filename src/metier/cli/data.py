"""`metier data`: the bundled data sets, and whether their files are intact."""

from __future__ import annotations

from typing import Annotated

import typer

from metier.cli.answer import CHECK_FAILED, OK, Answer, columns
from metier.cli.options import AsJson


def data(
    verify: Annotated[bool, typer.Option("--verify", help="Check every file against its SHA-256.")] = False,
    as_json: AsJson = False,
) -> Answer:
    """List the bundled data, or verify its checksums."""
    from metier.data import (
        registry,
        table_registry,
        text_registry,
        verify as verify_files,
        verify_tables,
        verify_texts,
    )

    texts = text_registry.values()
    document = {
        "data": [entry.to_dict() for entry in registry.values()],
        "tables": [entry.to_dict() for entry in table_registry.values()],
        "texts": [entry.to_dict() for entry in texts],
    }
    rows = [["NAME", "SERIES x STEPS", "STEP", "UNIT", "WHAT IT IS"]] + [
        [e.name, f"{e.shape[0]:,} x {e.shape[1]:,}", e.freq, e.unit, e.title] for e in registry.values()
    ]
    tables = [["NAME", "ROWS x COLUMNS", "WHAT IT IS"]] + [
        [e.name, f"{e.shape[0]:,} x {e.shape[1]:,}", e.title] for e in table_registry.values()
    ]
    if not verify:
        words = [["TEXT", "WHAT IT IS"]] + [[entry.name, entry.title] for entry in texts]
        text = "\n\n".join(map(columns, (rows, tables, words)))
        return Answer(document=document, text=text, as_json=as_json)
    states = {**verify_files(), **verify_tables(), **verify_texts()}
    intact = all(state == "ok" for state in states.values())
    return Answer(
        document={**document, "files": states, "intact": intact},
        text=columns([[state, name] for name, state in states.items()]),
        as_json=as_json,
        code=OK if intact else CHECK_FAILED,
    )

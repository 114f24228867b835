"""`metier list`: the studies there are."""

from __future__ import annotations

from metier.cli.answer import Answer, columns
from metier.cli.options import AsJson


def list_studies(as_json: AsJson = False) -> Answer:
    """List the studies."""
    from metier.core.registry import how_to_install, registry

    rows = [
        {
            "name": name,
            "family": entry.family,
            "title": entry.title,
            "extras": list(entry.extras),
            "in_tour": entry.in_tour,
        }
        for name, entry in registry().items()
    ]
    lines = columns(
        [["STUDY", "FAMILY", "NEEDS", "WHAT IT FINDS OUT"]]
        + [[name, e.family, ",".join(e.extras), e.title] for name, e in registry().items()]
    )
    hint = "Run one with: metier run STUDY [--size tour|standard|full]" if rows else how_to_install()
    return Answer(
        document={"studies": rows, "sizes": ["tour", "standard", "full"]},
        text=f"{lines}\n\n{hint}",
        as_json=as_json,
    )

"""`metier list`: the studies there are."""

from __future__ import annotations

from metier.cli.answer import Answer, columns
from metier.cli.options import AsJson


def list_studies(as_json: AsJson = False) -> Answer:
    """List the studies."""
    from metier.studies import REGISTRY, SIZES

    rows = [
        {
            "name": name,
            "family": entry.family,
            "title": entry.title,
            "extras": list(entry.extras),
            "in_tour": entry.in_tour,
        }
        for name, entry in REGISTRY.items()
    ]
    lines = columns(
        [["STUDY", "FAMILY", "NEEDS", "WHAT IT FINDS OUT"]]
        + [[name, e.family, ",".join(e.extras), e.title] for name, e in REGISTRY.items()]
    )
    hint = "Run one with: metier run STUDY [--size tour|standard|full]"
    return Answer(
        document={"studies": rows, "sizes": list(SIZES)}, text=f"{lines}\n\n{hint}", as_json=as_json
    )

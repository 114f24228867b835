"""`metier doctor`: versions, extras, threads and data of this installation."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

from metier.cli.answer import CHECK_FAILED, OK, Answer, columns
from metier.cli.options import AsJson

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Extras that develop or benchmark metier itself; nobody misses them.
_NOT_FOR_USERS = {"all", "dev", "bench"}


def doctor(as_json: AsJson = False) -> Answer:
    """Check the installation: packages, extras, threads, data."""
    from metier.data import verify
    from metier.runs import capture_environment

    environment = capture_environment()
    groups = package_states()
    files = verify()
    broken = [p["name"] for p in groups["base"] if p["state"] != "ok"]
    damaged = [name for name, state in files.items() if state != "ok"]
    document = {
        "environment": environment,
        "packages": groups,
        "data": files,
        "newer": newer_than_tested(groups),
        "problems": [f"package {name}" for name in broken] + [f"data file {name}" for name in damaged],
    }
    code = CHECK_FAILED if broken or damaged else OK
    return Answer(document=document, text=_text(document), as_json=as_json, code=code)


def package_states() -> dict[str, list[dict[str, str]]]:
    """Return the required packages by extra ("base" first), each with wanted and found version and state."""
    from metier.core.extras import requirements_of

    try:
        named = importlib.metadata.metadata("metier").get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        named = []
    groups = ["base", *named]
    return {
        group: [_state(requirement) for requirement in requirements_of(group)]
        for group in groups
        if group not in _NOT_FOR_USERS
    }


def newer_than_tested(groups: dict[str, list[dict[str, str]]]) -> list[str]:
    """Return a sentence for each package that is newer than what metier was tested with."""
    from packaging.version import Version

    from metier.core.extras import versions_tested

    tested = versions_tested()
    found = {package["name"]: package["found"] for packages in groups.values() for package in packages}
    notes = []
    for name, version in found.items():
        if version and name in tested and Version(Version(version).public) > Version(tested[name]):
            notes.append(f"{name} {version} is newer than the {tested[name]} that metier was tested with")
    if any(note.startswith("transformers ") for note in notes) and found.get("torch"):
        from metier.moe.attachment.discovery import unregistered_routers

        unknown = unregistered_routers()
        if unknown:
            notes.append(
                "routers that moe.attach takes only with a RouterFamily of yours: " + ", ".join(unknown)
            )
    return notes


def _state(requirement: Requirement) -> dict[str, str]:
    from metier.core.extras import is_met

    try:
        found = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        found = ""
    state = "ok" if is_met(requirement) else "wrong version" if found else "missing"
    return {"name": requirement.name, "wanted": str(requirement.specifier), "found": found, "state": state}


def _text(document: dict[str, Any]) -> str:
    env = document["environment"]
    threads = ", ".join(f"{k}={v}" for k, v in env["threads"].items()) or "not limited"
    head = columns(
        [
            ["metier", env["metier"] + (f" ({env['commit'][:12]})" if env["commit"] else "")],
            ["python", f"{env['python']} on {env['platform']} {env['machine']}"],
            ["CPUs", str(env["cpus"])],
            ["threads", threads],
        ]
    )
    states = list(document["data"].values())
    data = f"data: {states.count('ok')} of {len(states)} files intact"
    data = "\n".join([data, *(f"note: {note}" for note in document["newer"])])
    problems = [f"problem: {problem}" for problem in document["problems"]] or ["No problem found."]
    return "\n".join([head, "", *_groups(document["packages"]), "", data, "", *problems])


def _groups(groups: dict[str, list[dict[str, str]]]) -> list[str]:
    from metier.core.extras import install_command

    lines = []
    for group, packages in groups.items():
        missing = [p for p in packages if p["state"] != "ok"]
        shown = ", ".join(
            f"{p['name']} {p['found']}"
            if p["state"] == "ok"
            else f"{p['name']} {p['state']} (wants {p['wanted']})"
            for p in packages
        )
        lines.append(f"{'ok' if not missing else 'missing':8} {group}: {shown}")
        if missing:
            lines.append(f"{'':8} {install_command(group)}")
    return lines

"""`metier doctor`: versions, extras, threads and data of this installation."""

from __future__ import annotations

import importlib.metadata
import re
from typing import Any

from metier.cli.answer import CHECK_FAILED, OK, Answer, columns
from metier.cli.options import AsJson

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
        "problems": [f"package {name}" for name in broken] + [f"data file {name}" for name in damaged],
    }
    code = CHECK_FAILED if broken or damaged else OK
    return Answer(document=document, text=_text(document), as_json=as_json, code=code)


def package_states() -> dict[str, list[dict[str, str]]]:
    """Return the required packages by extra ("base" first), each with wanted and found version and state."""
    from packaging.requirements import Requirement

    groups: dict[str, list[dict[str, str]]] = {"base": []}
    for text in importlib.metadata.requires("metier") or []:
        requirement = Requirement(text)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", text)
        group = extra[1] if extra else "base"
        if group in _NOT_FOR_USERS or requirement.name == "metier":
            continue
        groups.setdefault(group, []).append(_state(requirement))
    return groups


def _state(requirement: Any) -> dict[str, str]:
    try:
        found = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        found = ""
    fits = bool(found) and requirement.specifier.contains(found, prereleases=True)
    state = "ok" if fits else "wrong version" if found else "missing"
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
    problems = [f"problem: {problem}" for problem in document["problems"]] or ["No problem found."]
    return "\n".join([head, "", *_groups(document["packages"]), "", data, "", *problems])


def _groups(groups: dict[str, list[dict[str, str]]]) -> list[str]:
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
            target = "metier" if group == "base" else f"metier[{group}]"
            lines.append(f'{"":8} pip install "{target}"')
    return lines

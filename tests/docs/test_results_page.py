"""The results page is made from committed records alone."""

from __future__ import annotations

import importlib.util
import json

import pytest
from markdown_blocks import ROOT

from metier.runs import Claim, Divided, Headline, Measured, Paid, Result, Specialized


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("results", ROOT / "docs/hooks/results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def study_result():
    gain = Measured(value=0.02, low=0.01, high=0.03, level=0.95, percent=True)
    return Result(
        study="toy",
        family="core",
        size="standard",
        seed=3,
        title="Toy",
        question="Is it so?",
        command="metier run toy --size standard --seed 3",
        headline=Headline(
            divided=Divided(text="in two"),
            specialized=Specialized(text="a little"),
            paid=Paid(text="it did", gain=gain, verdict="pays"),
        ),
        claims=(
            Claim(
                id="a",
                statement="a | b",
                source="ours",
                minimum_effect="1 %",
                measured=gain,
                verdict="undecided",
                needed=1234,
                needed_unit="seeds",
                command="metier run toy",
            ),
        ),
        notes=("a trap",),
    )


def benchmark(load=0.3):
    return {
        "benchmark": "toy-speed",
        "date": "2026-01-01 00:00 UTC",
        "command": "python benchmarks/toy.py",
        "cpu": "Some CPU",
        "cpus": 2,
        "commit": "abcdef0123456789",
        "load_average": [load, 0.0, 0.0],
        "result": {
            "n_series": 10000,
            "times": {"metier": {"wall_median": 0.01, "wall": [1, 2]}, "rival": {"wall_median": 2.5}},
            "regret": {"panel": {"value": 0.01, "low": 0.0, "high": 0.02, "level": 0.95, "percent": True}},
            "panels": {"raw": {"material": 1}},
        },
    }


def test_claims_should_come_from_records(hook, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/toy.json").write_text(study_result().to_json())
    text = hook.claims_text(tmp_path)
    assert "### toy, size standard, seed 3" in text
    assert "- **paid**: it did (pays, 2.0 % [1.0, 3.0])" in text
    assert "| a \\| b | ours | 1 % | 2.0 % [1.0, 3.0] | **undecided**, 1,234 seeds would decide |" in text
    assert "- a trap" in text
    assert "```bash\nmetier run toy --size standard --seed 3\n```" in text
    assert hook.benchmarks_text(tmp_path) == "No benchmark's result is committed yet."


def test_benchmarks_should_come_from_records(hook, tmp_path):
    (tmp_path / "toy.json").write_text(json.dumps(benchmark()))
    text = hook.benchmarks_text(tmp_path)
    assert "2026-01-01 00:00 UTC, Some CPU, 2 CPUs, commit `abcdef012345`." in text
    assert "| n series | 10,000 |" in text
    assert "| times | wall median |" in text
    assert "| rival | 2.5 |" in text
    assert "| panel | 1.0 % [0.0, 2.0] |" in text
    assert "material" not in text
    assert "busy" not in text
    assert hook.claims_text(tmp_path) == "No study's result is committed yet."


def test_a_busy_machine_should_be_said(hook, tmp_path):
    (tmp_path / "toy.json").write_text(json.dumps(benchmark(load=6.6)))
    assert "**The machine was busy** (load average 6.6)" in hook.benchmarks_text(tmp_path)


def test_goals_should_stand_in_the_committed_records(hook):
    lines = hook.goals_text(hook.RECORDS).splitlines()
    assert len(lines) > 15
    assert not [line for line in lines if "not measured" in line]


def test_goals_should_say_met_missed_and_not_measured(hook, tmp_path):
    for name, value in (("moe-cost", 0.03), ("bilevel-overhead", 0.09)):
        result = {"balancer_share": {"phi": value}, "forest": {"extra_share": value}}
        (tmp_path / f"{name}.json").write_text(json.dumps({"result": result}))
    text = hook.goals_text(tmp_path)
    assert "taken by phi, per cent | at most 2 | 3 | **missed** |" in text
    assert "per cent (forests) | at most 10 | 9 | met |" in text
    assert "taken by quantile, per cent | at most 2 |  | not measured |" in text


def test_committed_records_should_all_be_shown(hook):
    page = hook.on_page_markdown((ROOT / "docs/results.md").read_text(encoding="utf-8"))
    assert "<!--" not in page
    shown = [r for r in hook.records(hook.RECORDS) if "benchmark" in r or "claims" in r]
    assert shown
    for record in shown:
        assert f"### {record.get('benchmark') or record['study']}" in page

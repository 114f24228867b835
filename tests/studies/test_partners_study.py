"""Study `partners`: its configuration, what it says of populations that count and of those that do not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from metier import partners
from metier.core import InputError
from metier.runs import Run
from metier.studies import execute
from metier.studies.partners_pipeline.findings import counts_as_population, findings
from metier.studies.partners_pipeline.study import STUDY, PartnersConfig, check_config

CONFIG = PartnersConfig(game="lever", n_members=4, n_seeds=3, episodes=100)
PERFECT = [100] * 6


def facts(levers, with_strangers, *, with_oracle=1.0, success=100):
    counts = np.zeros((4, 6), int)
    counts[np.arange(4), levers] = success
    p = np.bincount(levers, minlength=6) / 4
    information = float(-(p[p > 0] * np.log(p[p > 0])).sum())
    stderr = dict.fromkeys(("diversity", "specialization", "information"), 0.01)
    told = {"diversity": information, "specialization": 0.0, "information": information, "stderr": stderr}
    capable = counts.sum(axis=1) > 50
    rates = (np.array(with_strangers) + 0.5) / 101
    return {
        "counts": counts.tolist(),
        "failures": [100 - success] * 4,
        "returns": [1.0] * 4,
        "capable": capable.tolist(),
        "covered": len(set(levers)) if capable.any() else 0,
        "with_oracle": {
            "successes": [100] * 4,
            "returns": [1.0] * 4,
            "robustness": with_oracle,
            "stderr": 0.01,
        },
        "with_strangers": {
            "successes": list(with_strangers),
            "returns": [1.0] * 6,
            "robustness": float(6 / (1 / rates).sum()),
            "stderr": 0.01,
        },
        **({"told": told} if capable.any() else {}),
    }


def found(tmp_path, cells, config=CONFIG):
    oracle = [
        {"successes": PERFECT, "returns": [1.0] * 6, "robustness": 0.99, "stderr": 0.01}
    ] * config.n_seeds
    with Run.create(tmp_path / "run", study="partners", size="tour", config=config, seed=0) as run:
        return findings(config, cells, oracle, run)


def good_cells():
    base = [facts([0, 0, 0, 1], [90, 80, 10 + k, 5, 0, 10]) for k in range(3)]
    source = [facts([0, 1, 2, 3], [95, 95, 90, 90, 20 + k, 10], with_oracle=0.5 + k / 100) for k in range(3)]
    best = [facts([0, 1, 2, 3], [99, 98, 97, 96, 60 + k, 50], with_oracle=0.8 + k / 50) for k in range(3)]
    return {"self-play": base, "xp-min": source, "xp-min+dagger": best}


def test_populations_that_count_should_have_verdicts(tmp_path):
    result = found(tmp_path, good_cells())
    verdicts = {claim.id: claim.verdict for claim in result.claims}
    assert verdicts == {
        "specialists-count": "holds",
        "more-information": "holds",
        "less-overfit": "holds",
        "keeps-information": "holds",
        "specialists-pay": "holds",
    }
    assert set(verdicts) == set(STUDY.claims)
    assert result.headline.paid.verdict == "pays"
    # Exactly the mean difference of failure shares over 18 pairs of specialist and seed.
    base, best = good_cells()["self-play"], good_cells()["xp-min+dagger"]
    gain = np.mean(
        [
            np.subtract(b["with_strangers"]["successes"], a["with_strangers"]["successes"]) / 100
            for a, b in zip(base, best, strict=True)
        ]
    )
    assert result.headline.paid.gain.value == pytest.approx(gain)
    assert result.headline.specialized.information == pytest.approx(np.log(4))
    assert result.headline.divided.load == pytest.approx([0.25] * 4 + [0, 0])


@pytest.mark.parametrize(
    ("levers", "success", "words"),
    [([0, 0, 1, 1], 100, "4 of 4 capable, 2 behaviours"), ([0, 1, 2, 3], 40, "0 of 4 capable, 0 behaviours")],
)
def test_populations_that_do_not_count_should_never_win(tmp_path, levers, success, words):
    """The issue's rule: otherwise the verdict is "not reproduced", with what was tried."""
    cells = good_cells()
    cells["xp-min+dagger"][1] = facts(levers, [99] * 6, success=success)
    result = found(tmp_path, cells)
    assert not counts_as_population(CONFIG, cells["xp-min+dagger"][1])
    claims = {claim.id: claim for claim in result.claims}
    assert claims["specialists-count"].verdict == "does not hold"
    assert all(claim.verdict != "holds" for claim in claims.values())
    for claim in claims.values():
        assert "not reproduced" in claim.reason
        assert words in claim.reason
        assert "Tried: xp-min+dagger" in claim.reason
    assert result.headline.paid.text.startswith("Not reproduced in every seed")
    assert any("does not count as a population" in note for note in result.notes)


def test_partners_that_never_succeed_should_still_give_a_result(tmp_path):
    none = [facts([0, 1, 2, 3], [0] * 6, success=0) for _ in range(3)]
    result = found(tmp_path, {"self-play": none, "xp-min": none, "xp-min+dagger": none})
    assert result.headline.divided.text.startswith("No partner succeeded")
    assert result.headline.paid.verdict in ("equivalent", "undecided")


def test_two_seeds_should_leave_claims_about_methods_undecided(tmp_path):
    config = dataclasses.replace(CONFIG, n_seeds=2)
    result = found(tmp_path, {arm: cells[:2] for arm, cells in good_cells().items()}, config)
    claims = {claim.id: claim for claim in result.claims}
    assert claims["more-information"].verdict == "undecided"
    assert claims["more-information"].needed == 3
    assert "2 seeds give no interval" in claims["more-information"].reason


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"arms": ("self-play", "lipo")}, "arms are known populations.*'lipo'"),
        ({"arms": ("self-play", "xp-min+dagger")}, "expected xp-min before xp-min.dagger"),
        ({"arms": ("xp-min", "xp-min+dagger")}, "'self-play' and at least one other arm"),
        ({"arms": ("self-play", "xp-min", "xp-min")}, "each arm comes once"),
        ({"n_members": 1}, "enough to measure.*n_members=1"),
        ({"episodes": 7}, "enough to measure.*episodes=7"),
    ],
)
def test_bad_configurations_should_be_refused(change, match):
    with pytest.raises(InputError, match=match):
        check_config(dataclasses.replace(CONFIG, **change))


def test_study_should_have_three_sound_sizes():
    assert set(STUDY.sizes) == {"tour", "standard", "full"}
    for config in STUDY.sizes.values():
        check_config(config)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not hasattr(partners, "train_xp_min"), reason="cross-play minimization is not here yet")
def test_interrupted_pipelines_should_end_with_the_same_result(tmp_path):
    """A micro run twice: alone, and with its last cell taken away, which trains nothing anew."""
    small = {
        "n_members": "2", "n_seeds": "1", "episodes": "4", "hidden": "8", "generalist_units": "4",
        "arms": "self-play,xp-min,xp-min+dagger", "n_envs": "8", "generalist_envs": "4", "n_steps": "4",
        **{f"{name}_steps": "256" for name in ("self_play", "generation", "distill", "generalist", "oracle")},
    }  # fmt: skip
    execute(STUDY, tmp_path / "a", overrides=small)
    once = (tmp_path / "a" / "result.json").read_bytes()
    journal = tmp_path / "a" / "metrics.jsonl"
    journal.write_text("".join(line for line in journal.read_text().splitlines(True) if "dagger" not in line))
    (tmp_path / "a" / "result.json").unlink()
    execute(STUDY, tmp_path / "a", overrides=small, resume=True)
    assert (tmp_path / "a" / "result.json").read_bytes() == once

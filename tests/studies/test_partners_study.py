"""Study `partners`: its configuration, what it says of populations that count and of those that do not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from metier.core import InputError
from metier.runs import Run, execute
from metier_studies.partners_pipeline.claims import statements
from metier_studies.partners_pipeline.findings import findings
from metier_studies.partners_pipeline.intervals import counts_as_population, over_seeds
from metier_studies.partners_pipeline.settings import PartnersConfig, check_config
from metier_studies.partners_pipeline.study import STUDY
from metier_studies.partners_pipeline.work import chain, roots

CONFIG = PartnersConfig(game="lever", n_members=4, n_seeds=3, episodes=100)
PERFECT = [1.0] * 6


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
        "cross_play": np.eye(4).tolist(),
        "capable": capable.tolist(),
        "covered": len(set(levers)) if capable.any() else 0,
        "with_oracle": {
            "success": [1.0] * 4,
            "returns": [1.0] * 4,
            "robustness": with_oracle,
            "stderr": 0.01,
        },
        "with_strangers": {
            "success": [share / 100 for share in with_strangers],
            "returns": [1.0] * 6,
            "robustness": float(6 / (1 / rates).sum()),
            "stderr": 0.01,
        },
        **({"told": told} if capable.any() else {}),
    }


def found(tmp_path, cells, config=CONFIG):
    oracle = [{"success": PERFECT, "returns": [1.0] * 6, "robustness": 0.99, "stderr": 0.01}] * config.n_seeds
    with Run.create(tmp_path / "run", study="partners", size="tour", config=config, seed=0) as run:
        return findings(config, cells, oracle, run)


def good_cells():
    base = [facts([0, 0, 0, 1], [90, 80, 10 + k, 5 + k, 0, 10], with_oracle=0.95 + k / 100) for k in range(3)]
    source = [facts([0, 1, 2, 3], [95, 95, 90, 90, 20 + k, 10], with_oracle=0.5 + k / 100) for k in range(3)]
    best = [facts([0, 1, 2, 3], [99, 98, 97, 96, 60 + k, 50], with_oracle=0.8 + k / 50) for k in range(3)]
    return {"self-play": base, "xp-min": source, "xp-min+dagger": best}


def test_populations_that_count_should_have_verdicts(tmp_path):
    result = found(tmp_path, good_cells())
    verdicts = {claim.id: claim.verdict for claim in result.claims}
    assert verdicts == {
        "specialists-count": "holds",
        "more-information": "holds",
        "more-overfit": "holds",
        "less-overfit": "holds",
        "keeps-information": "holds",
        "cross-play-pays": "holds",
        "distillation-pays": "holds",
        "specialists-pay": "holds",
    }
    assert set(verdicts) < set(STUDY.claims)
    assert result.headline.paid.verdict == "pays"
    # Exactly the mean over seeds of the difference of mean failure shares; its interval is over three seeds.
    base, best = good_cells()["self-play"], good_cells()["xp-min+dagger"]
    by_seed = [
        np.mean(b["with_strangers"]["success"]) - np.mean(a["with_strangers"]["success"])
        for a, b in zip(base, best, strict=True)
    ]
    gain = result.headline.paid.gain
    assert gain.value == pytest.approx(np.mean(by_seed))
    assert (gain.n, gain.unit) == (3, "seeds")
    assert result.headline.specialized.information == pytest.approx(np.log(4))
    assert result.headline.divided.load == pytest.approx([0.25] * 4 + [0, 0])


def test_a_gain_that_is_the_same_in_three_seeds_should_be_undecided(tmp_path):
    cells = good_cells()
    cells["self-play"] = [cells["self-play"][0]] * 3
    cells["xp-min+dagger"] = [cells["xp-min+dagger"][0]] * 3
    paid = found(tmp_path, cells).headline.paid
    assert (paid.verdict, paid.needed, paid.needed_unit) == ("undecided", 6, "seeds")


def test_statements_should_be_about_the_first_arm_of_cross_play(tmp_path):
    """With mixed play alone its arms stand in; what the paper says is of the same arms, or nothing."""
    arms = ("self-play", "xp-min+mp", "xp-min+mp+dagger")
    config = dataclasses.replace(CONFIG, game="cooking", arms=arms)
    said = {s.id: (s.low, s.high, s.published) for s in statements(config)}
    assert said["more-information"] == ("self-play", "xp-min+mp", pytest.approx(0.51))
    assert said["less-overfit"] == ("xp-min+mp", "xp-min+mp+dagger", None)
    assert "mixed-play-costs" not in said, "there is nothing to compare it with"
    full = {s.id: (s.low, s.high, s.published) for s in statements(STUDY.sizes["full"])}
    assert full["more-overfit"] == ("self-play", "xp-min", pytest.approx(0.43))
    assert full["mixed-play-costs"] == ("xp-min", "xp-min+mp", pytest.approx(0.12))
    assert {"specialists-count", *full, "specialists-pay"} == set(STUDY.claims)
    cells = dict(zip(arms, good_cells().values(), strict=True))
    claims = {claim.id: claim for claim in found(tmp_path, cells, config).claims}
    assert claims["less-overfit"].verdict == "holds"
    assert "(xp-min+mp+dagger against xp-min+mp)" in claims["less-overfit"].minimum_effect
    assert "the paper's tables: +0.39" in claims["more-overfit"].reason
    assert "lambda_MP" not in claims["more-overfit"].reason, "that is said where something fell short"


@pytest.mark.parametrize(
    ("levers", "success", "words"),
    [([0, 0, 1, 1], 100, "4 of 4 capable, 2 behaviours"), ([0, 1, 2, 3], 40, "0 of 4 capable, 0 behaviours")],
)
def test_populations_that_do_not_count_should_never_win(tmp_path, levers, success, words):
    """Otherwise the verdict is "not reproduced", with what was tried."""
    cells = good_cells()
    cells["xp-min+dagger"][1] = facts(levers, [99] * 6, success=success)
    result = found(tmp_path, cells)
    assert not counts_as_population(CONFIG, cells["xp-min+dagger"][1])
    claims = {claim.id: claim for claim in result.claims}
    assert claims["specialists-count"].verdict == "does not hold"
    assert claims["more-information"].verdict == "holds", "its own two populations count"
    about = ("specialists-count", "less-overfit", "keeps-information", "distillation-pays", "specialists-pay")
    for claim in (claims[name] for name in about):
        assert claim.verdict != "holds"
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
    assert "2 seeds say nothing about a method" in claims["more-information"].reason
    assert claims["specialists-pay"].measured.unit == "specialists"
    assert any("fewer than three seeds" in note for note in result.notes)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"arms": ("self-play", "lipo")}, "arms are known populations.*'lipo'"),
        ({"arms": ("self-play", "xp-min+dagger")}, "expected xp-min before xp-min.dagger"),
        ({"arms": ("xp-min", "xp-min+dagger")}, "'self-play' first, and at least one other arm"),
        ({"arms": ("xp-min", "self-play")}, "'self-play' first"),
        ({"arms": ()}, "no arm"),
        ({"arms": ("self-play", "xp-min", "xp-min")}, "each arm comes once"),
        ({"n_members": 1}, "enough to measure.*n_members=1"),
        ({"episodes": 7}, "enough to measure.*episodes=7"),
        ({"checkpoints": (0.5, 0.25)}, "increasing fractions"),
    ],
)
def test_bad_configurations_should_be_refused(change, match):
    with pytest.raises(InputError, match=match):
        check_config(dataclasses.replace(CONFIG, **change))


def test_study_should_have_three_sound_sizes():
    assert set(STUDY.sizes) == {"tour", "standard", "full"}
    for config in STUDY.sizes.values():
        check_config(config)


def test_intervals_should_hold_seeds_and_episodes():
    """Hierarchical: seeds that agree by chance are no narrower than their episodes make them."""
    spread = over_seeds([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    assert spread.high - spread.value == pytest.approx(4.302653 / np.sqrt(3))
    agreeing = over_seeds([2.0, 2.0, 2.0], [0.3, 0.3, 0.3])
    assert agreeing.high - agreeing.value == pytest.approx(4.302653 * 0.3 / np.sqrt(3))
    assert over_seeds([2.0], [0.1]).high == pytest.approx(2.0 + 1.959964 * 0.1)
    exact = over_seeds([2.0], [0.0])
    assert (exact.low, exact.high, exact.method) == (None, None, "Student t")


def test_chains_should_hold_every_arm_once():
    full = STUDY.sizes["full"]
    chains = [chain(full, root) for root in roots(full)]
    assert sorted(arm for names in chains for arm in names) == sorted(full.arms)
    assert roots(full)[-1] == "self-play"
    assert all(names[0] == root for names, root in zip(chains, roots(full), strict=True))


MICRO = {
    "n_seeds": "1", "episodes": "4", "hidden": "4", "generalist_units": "2", "n_pairs": "none",
    "n_envs": "2", "generalist_envs": "2", "n_steps": "4", "epochs": "1", "minibatches": "1", "reports": "1",
    "workers": "1", "pair_episodes": "2",
    **{f"{name}_steps": "64" for name in ("self_play", "generation", "distill", "generalist", "oracle")},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiler")
def test_interrupted_pipelines_should_end_with_the_same_result(tmp_path):
    """A micro run of the lever game, and again with its last cell taken away, which trains nothing anew."""
    small = MICRO | {"n_members": "2", "payoffs": "1,0.9"}
    execute(STUDY, tmp_path / "a", overrides=small)
    once = (tmp_path / "a" / "result.json").read_bytes()
    journal = tmp_path / "a" / "metrics.jsonl"
    journal.write_text("".join(line for line in journal.read_text().splitlines(True) if "dagger" not in line))
    (tmp_path / "a" / "result.json").unlink()
    execute(STUDY, tmp_path / "a", overrides=small, resume=True)
    assert (tmp_path / "a" / "result.json").read_bytes() == once


@pytest.mark.evidence(*(f"src/metier/{room}" for room in ("core", "runs", "studies", "partners")))
@pytest.mark.usefixtures("quick_compiler")
def test_full_size_should_run_in_miniature(tmp_path):
    """Latents, distillation and checkpoints of the full study, in the small kitchen, one chain."""
    arms = "self-play,xp-min+mi,xp-min+mi+dagger"
    changes = MICRO | {"n_members": "2", "layout": "small", "arms": arms, "checkpoints": "0.5"}
    result = execute(STUDY, tmp_path / "f", size="full", overrides=changes)
    told = [claim.id for claim in result.claims]
    assert told[:2] == ["specialists-count", "more-information"]
    assert told[-1] == "specialists-pay"
    assert "mi-widens" not in told, "it is about plain cross-play minimization, which did not run"
    figures = [figure.id for section in result.sections for figure in section.figures]
    assert {"episode", "behaviours", "measures", "learning-curves", "cross-play-xp-min-mi"} <= set(figures)
    kept = {path.name for path in (tmp_path / "f" / "populations" / "seed-0").glob("*.safetensors")}
    assert {"xp-min+mi+dagger-at-50.safetensors", "generalist-xp-min+mi.safetensors"} <= kept

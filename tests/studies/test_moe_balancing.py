"""The study of balancers: its corpus, n-gram, model, training, choice of strengths, and resuming."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metier.core import InputError
from metier.runs import Measured, Run
from metier_studies import Silent, load_study
from metier_studies.lib.paired_seeds import decide, detectable, holm, two_sided, within_claim
from metier_studies.moe_balancing.arms import ARMS, make_balancer
from metier_studies.moe_balancing.bias import _biases, _gradient
from metier_studies.moe_balancing.corpus import batches, evaluation_windows, load_corpus
from metier_studies.moe_balancing.findings import _in_words
from metier_studies.moe_balancing.model import SparseLanguageModel
from metier_studies.moe_balancing.ngram import count, probabilities, tuned_ngram
from metier_studies.moe_balancing.study import STUDY, chosen
from metier_studies.moe_balancing.tables import at_edge
from metier_studies.moe_balancing.train import Training, build, fit, schedule, train

TINY = dataclasses.replace(
    STUDY.sizes["tour"],
    arms=("phi", "none", "switch"),
    headline_seeds=2,
    pure_arms=("phi",),
    pure_seeds=1,
    tuning_steps=3,
    steps=4,
    characters=12_000,
    dim=16,
    heads=2,
    hidden=8,
    n_experts=4,
    length=32,
    rows=4,
    windows=4,
    permutations=3,
    buckets=64,
    bias_sizes=(8, 32),
    bias_batches=20,
    workers=1,
)


@pytest.fixture(scope="module")
def corpus():
    return load_corpus(("plays", "novels"), characters=40_000, rng=np.random.default_rng(0))


def test_documents_should_be_dealt_whole(corpus):
    labels = {name: set(np.concatenate(split.documents).tolist()) for name, split in corpus.splits.items()}
    assert not labels["train"] & labels["val"]
    assert not labels["train"] & labels["tune"]
    assert not labels["tune"] & labels["val"]
    sizes = {name: sum(row.size for row in split.tokens) for name, split in corpus.splits.items()}
    assert sizes["train"] > 4 * sizes["val"] > 0


def test_evaluation_windows_should_stay_in_their_document(corpus):
    windows = evaluation_windows(corpus.splits["val"], length=64, per_domain=10)
    text = {d: corpus.splits["val"].tokens[d].tobytes() for d in (0, 1)}
    assert all(row.tobytes() in text[d] for row, d in zip(windows.tokens, windows.domains, strict=True))
    for document, row in zip(windows.documents, windows.tokens, strict=True):
        own = [
            tokens[labels == document].tobytes()
            for tokens, labels in zip(
                corpus.splits["val"].tokens, corpus.splits["val"].documents, strict=True
            )
        ]
        assert any(row.tobytes() in piece for piece in own)


@pytest.mark.parametrize("pure", [False, True])
def test_pure_batches_should_hold_one_domain(corpus, pure):
    stream = batches(
        corpus.splits["train"], rows=6, length=16, steps=20, pure=pure, rng=np.random.default_rng(1)
    )
    kinds = [len(set(domains.tolist())) for _, domains in stream]
    assert (max(kinds) == 1) == pure


def test_one_domain_should_be_refused():
    with pytest.raises(InputError, match="a study of domains needs several"):
        load_corpus(("plays",), characters=1000, rng=np.random.default_rng(0))


def slow_probability(text, history, byte, order, discount):
    """Interpolated discounting, from the text by counting substrings."""
    lower = 1 / 256 if order == 1 else slow_probability(text, history, byte, order - 1, discount)
    context = history[len(history) - order + 1 :] if order > 1 else b""
    following = [
        text[i + order - 1] for i in range(len(text) - order + 1) if text[i : i + order - 1] == context
    ]
    if not following:
        return lower
    own = max(following.count(byte) - discount, 0) / len(following)
    return own + discount * len(set(following)) / len(following) * lower


def test_ngram_should_agree_with_counting_substrings():
    text = b"the cat sat on the mat, the cat ran"
    row = np.frombuffer(text, dtype=np.uint8).astype(np.int64)
    window = np.frombuffer(b"the cat on", dtype=np.uint8).astype(np.int64)[None]
    tables = [count([row], order) for order in (1, 2, 3)]
    found = probabilities(tables, window, discount=0.7)[0]
    for t in range(1, 10):
        history = window[0, :t].astype(np.uint8).tobytes()
        order = min(3, t + 1)
        assert found[t - 1] == pytest.approx(slow_probability(text, history, window[0, t], order, 0.7))


def test_ngram_should_be_a_distribution():
    rng = np.random.default_rng(0)
    tables = [count([rng.integers(256, size=500)], order) for order in (1, 2)]
    every = np.stack([np.full(256, 65), np.arange(256)], axis=1)
    assert probabilities(tables, every, discount=0.5).sum() == pytest.approx(1.0)


def test_ngram_should_learn_text(corpus):
    val = evaluation_windows(corpus.splits["val"], length=64, per_domain=10).tokens
    found = tuned_ngram(corpus.splits["train"].tokens, val, val)
    assert 1.5 < found["val"] < 2.6


def test_model_should_see_no_later_byte():
    torch.manual_seed(0)
    model = SparseLanguageModel(
        dim=16, heads=2, layers=2, hidden=8, n_experts=4, top_k=2, length=12, buckets=32
    ).eval()
    tokens = torch.randint(256, (2, 12))
    other = tokens.clone()
    other[:, 7:] = torch.randint(256, (2, 5))
    torch.testing.assert_close(model(tokens)[:, :7], model(other)[:, :7])
    assert not torch.equal(model(tokens)[:, 7:], model(other)[:, 7:])


def task(arm, *, strength=None, replicate=0, pure=False):
    return Training(
        arm=arm,
        strength=strength,
        replicate=replicate,
        pure=pure,
        steps=4,
        split="val",
        setup=TINY.setup(0),
    )


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_should_train_and_measure(arm):
    found = train(task(arm, strength=ARMS[arm].strength))
    assert 0 < found["loss"] < 7
    assert found["max_vio"] >= 0
    assert np.asarray(found["counts"]).sum() == 2 * 2 * 4 * 4 * 32  # layers, choices, domains, windows, bytes
    assert np.asarray(found["by_domain"]).sum(axis=1) == pytest.approx(np.ones(4))


def test_arms_of_a_seed_should_be_paired():
    a, b = build(task("phi", strength=0.01))[0], build(task("none"))[0]
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    other = build(task("none", replicate=1))[0]
    assert not torch.equal(a.head.weight, other.head.weight)


def test_training_should_repeat_itself():
    first, second = (fit(task("phi", strength=0.1)) for _ in range(2))
    assert first[1] == second[1]
    assert all(torch.equal(p, q) for p, q in zip(first[0].parameters(), second[0].parameters(), strict=True))


def test_balancers_should_take_their_strength():
    assert make_balancer("none", None) is None
    assert make_balancer("phi", 0.25).strength == 0.25
    assert make_balancer("quantile", 0.25).bias_strength == 0.25
    assert ARMS["phi"].grid(3) == pytest.approx([0.01, 0.03, 0.09])


def test_chosen_strength_should_be_the_most_even_of_the_best():
    trials = {
        0.1: {"loss": 2.0, "max_vio": 3.0},
        0.2: {"loss": 2.003, "max_vio": 1.0},
        0.4: {"loss": 2.1, "max_vio": 0.1},
    }
    assert chosen(trials, 0.005) == 0.2
    assert chosen(trials, 0.0) == 0.1
    assert at_edge({"strength": 0.4, "trials": [[0.1, 0, 0], [0.2, 0, 0], [0.4, 0, 0]]})
    assert not at_edge({"strength": 0.2, "trials": [[0.1, 0, 0], [0.2, 0, 0], [0.4, 0, 0]]})


def test_schedule_should_warm_up_and_end_near_zero():
    rates = [schedule(step, 100) for step in range(100)]
    assert rates[0] < 0.2 < max(rates) == 1.0
    assert rates[-1] <= 0.02


def test_price_gradient_should_be_autograds():
    rng = np.random.default_rng(0)
    x, price = torch.tensor(rng.normal(size=(9, 5))), torch.tensor(rng.normal(size=4))
    weight = torch.tensor(rng.normal(size=(4, 5)), requires_grad=True)
    p = (x @ weight.t()).softmax(-1)
    (p.mean(0) @ price).backward()
    found = _gradient(price.numpy(), x.numpy(), p.detach().numpy())
    np.testing.assert_allclose(found, weight.grad.numpy(), atol=1e-12)


def test_bias_should_fall_with_the_batch_and_with_the_lag():
    """In the study's own measure: about four times less bias for four times the tokens."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 6))
    logits = x @ rng.normal(size=(6, 8))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    small, large = (
        _biases(x, p, 2, (rng.integers(2000, size=size) for _ in range(3000))) for size in (8, 32)
    )
    assert 3.0 < small["minibatch"] / large["minibatch"] < 5.0
    assert small["lagged"] < 0.15 * small["minibatch"]
    assert small["paper"] < 0.3 * small["minibatch"]


def test_detectable_difference_should_follow_the_spread():
    rng = np.random.default_rng(0)
    a, noise = rng.normal(size=10), rng.normal(size=10)
    assert detectable(a, a + 2 * noise) == pytest.approx(2 * detectable(a, a + noise))
    assert np.isnan(detectable([1.0], [2.0]))


def test_equivalence_should_be_a_verdict():
    rng = np.random.default_rng(0)
    a = rng.normal(size=10)
    assert decide(a, a + 1e-3 * rng.normal(size=10), margin=0.01).verdict == "equivalent"
    assert decide(a, a + 1.0, margin=0.01).verdict == "pays"
    claim = within_claim(
        np.array([0.4, 0.6, 0.5]),
        0.5,
        below=True,
        id="x",
        statement="s",
        source="ours",
        minimum_effect="m",
        command="c",
    )
    assert claim.verdict == "undecided"


def test_p_values_should_be_paired_and_adjusted():
    rng = np.random.default_rng(0)
    a, shared = rng.normal(size=10), rng.normal(size=10)
    from scipy import stats

    assert two_sided(a, a + 0.1 * shared) == pytest.approx(stats.ttest_1samp(0.1 * shared, 0).pvalue)
    assert two_sided(a, a) == 1.0
    assert np.isnan(two_sided([1.0], [2.0]))
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_headline_should_say_a_loss_or_a_gain_in_words():
    def say(verdict, value):
        gain = Measured(value=value, low=value - 0.001, high=value + 0.001, level=0.95, n=10, unit="seeds")
        return _in_words(verdict, gain, "switch", 0.01)

    assert "lowers the validation loss by 0.0200 nats" in say("pays", 0.02)
    assert "costs 0.0200 nats per byte of validation loss" in say("hurts", -0.02)
    assert "the same validation loss within 0.01" in say("equivalent", -0.0067)
    assert "is open: -0.0200" in say("undecided", -0.02)
    assert not any("-0.0200 lower" in say(v, -0.02) for v in ("pays", "hurts", "equivalent", "undecided"))


def test_a_killed_study_should_resume_to_the_same_bytes(tmp_path):
    study = load_study("moe-balancing")

    def result(name, *, stop_after=None):
        folder = tmp_path / name
        made = {"study": study.name, "size": "tour", "seed": 0, "config": TINY}
        with Run.open(folder) if folder.exists() else Run.create(folder, **made) as run:
            if stop_after is not None:
                cell, calls = run.cell, []

                def dying(key, work, **times):
                    calls.append(key)
                    if len(calls) > stop_after:
                        raise KeyboardInterrupt
                    return cell(key, work, **times)

                run.cell = dying
            return study.run(TINY, run, Silent()).to_json()

    whole = result("whole")
    with pytest.raises(KeyboardInterrupt):
        result("killed", stop_after=3)
    assert result("killed") == whole
    assert '"below-ngram"' in whole

"""Figures of routing against their definitions, and information against its nulls."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from routers import EXPERTS, TOP_K, TinyRouter, domain_tokens, run_step

from metier import moe
from metier.core.errors import InputError


@pytest.mark.parametrize("n_experts", [2, 8, 64])
def test_uniform_loads_should_be_perfect(n_experts: int) -> None:
    """Must 21: MaxVio = Gini = CV = 0, entropy 1, nothing dead, 1e-6."""
    m = moe.routing_metrics(np.full(n_experts, 7))
    got = (m.max_vio[0], m.gini[0], m.cv[0], m.entropy[0], m.dead[0], m.zero[0])
    assert got == pytest.approx((0, 0, 0, 1, 0, 0), abs=1e-6)


@pytest.mark.parametrize(("n_experts", "k"), [(4, 1), (8, 2), (64, 4)])
def test_collapse_should_reach_the_ceilings(n_experts: int, k: int) -> None:
    """Must 21: k experts take all: E/k - 1, 1 - k/E, sqrt(E/k - 1), log k / log E, 1e-6."""
    counts = np.zeros(n_experts)
    counts[:k] = 10
    m = moe.routing_metrics(counts)
    assert m.max_vio[0] == pytest.approx(n_experts / k - 1, abs=1e-6)
    assert m.gini[0] == pytest.approx(1 - k / n_experts, abs=1e-6)
    assert m.cv[0] == pytest.approx(math.sqrt(n_experts / k - 1), abs=1e-6)
    assert m.entropy[0] == pytest.approx(math.log(k) / math.log(n_experts), abs=1e-6)
    assert (m.dead[0], m.zero[0]) == (n_experts - k, n_experts - k)


def test_dead_should_be_told_from_never_chosen() -> None:
    m = moe.routing_metrics([0, 1, 5000, 5000])
    assert (m.dead, m.zero) == ((2,), (1,))
    assert moe.routing_metrics([0, 1, 5000, 5000], dead_share=1e-5).dead == (1,)
    # 0.1 / E where that is less than 1 %.
    assert moe.routing_metrics([9] + [1000] * 31).dead == (1,)
    assert moe.routing_metrics([200] + [1000] * 31).dead == (0,)


@given(counts=st.lists(st.integers(0, 1000), min_size=2, max_size=40).filter(any), seed=st.integers(0, 99))
def test_figures_should_not_know_the_order_and_keep_their_bounds(counts: list[int], seed: int) -> None:
    m = moe.routing_metrics(counts)
    shuffled = moe.routing_metrics(np.random.default_rng(seed).permutation(counts))
    assert m.to_dict() == pytest.approx(shuffled.to_dict(), abs=1e-9)
    n = len(counts)
    f = np.array(counts) / sum(counts)
    pairs = np.abs(f[:, None] - f[None, :]).sum() / (2 * n)
    assert m.gini[0] == pytest.approx(pairs, abs=1e-9)
    assert m.cv[0] == pytest.approx(f.std() / f.mean(), abs=1e-9)
    assert -1e-9 <= m.max_vio[0] <= n - 1 + 1e-9
    assert -1e-12 <= m.entropy[0] <= 1 + 1e-9


def test_layers_should_be_averaged_and_the_worst_named() -> None:
    m = moe.routing_metrics(
        {"a": [1, 1], "b": torch.tensor([2.0, 0.0, 0.0, 0.0])}, gates={"a": [1, 1], "b": [1, 1, 1, 1]}
    )
    assert m.layers == ("a", "b")
    assert m.mean["max_vio"] == 1.5
    assert (m.worst["max_vio"], m.worst["entropy"], m.worst["gate_entropy"]) == (3.0, 0.0, 1.0)
    assert m.per_layer()["b"]["zero"] == 3
    many = moe.routing_metrics(np.ones((40, 8)), gates=np.ones((40, 8)))
    assert set(many.to_dict()) == set(m.to_dict())
    assert json.loads(json.dumps(m.to_dict())) == m.to_dict()
    assert m.summary().startswith("2 layers: MaxVio 1.50 (worst 3.00)")


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([0, 0, 0], r"counts of layer_0 say how often.*not all 0"),
        ([[1, 2], [3, -1]], "counts of layer_1"),
        ([1, float("nan")], "counts is finite everywhere"),
        ({"gate": [5.0]}, "counts of gate"),
        (np.ones((2, 2, 2)), r"shape \(E,\) or \(layers, E\)"),
    ],
)
def test_bad_counts_should_be_refused(counts: object, text: str) -> None:
    with pytest.raises(InputError, match=text):
        moe.routing_metrics(counts)


def test_gates_of_other_layers_should_be_refused() -> None:
    with pytest.raises(InputError, match="gates and counts are of the same layers"):
        moe.routing_metrics({"a": [1, 1]}, gates={"b": [1, 1]})


def test_balanced_bijection_should_have_log_e_nats() -> None:
    """Must 22: I = ln E within 1e-6."""
    labels = np.repeat(np.arange(8), 20)
    found = moe.routing_information(labels, labels[:, None], n_experts=8, permutations=9)
    assert found.plain.value == pytest.approx(math.log(8), abs=1e-6)
    assert found.share == pytest.approx(1.0, abs=1e-6)
    assert found.given_token is None


def test_independent_labels_should_give_the_plug_in_bias() -> None:
    """Must 22: mean over 60 draws within 3 s.e. of (labels - 1)(E - 1) / 2N; the null's mean agrees too.

    Two-sided at 3 s.e.: error rate 0.3 %, seed fixed.
    """
    rng, n, labels, n_experts = np.random.default_rng(0), 4000, 5, 8
    values, nulls = [], []
    for _ in range(60):
        r = moe.routing_information(
            rng.integers(0, labels, n),
            rng.integers(0, n_experts, n),
            n_experts=n_experts,
            permutations=3,
            rng=rng,
        )
        values.append(r.plain.value)
        nulls.append(r.plain.null_mean)
    bias = (labels - 1) * (n_experts - 1) / (2 * n)
    for found in (values, nulls):
        assert abs(np.mean(found) - bias) <= 3 * np.std(found, ddof=1) / math.sqrt(60)


def test_documents_should_be_the_unit_of_the_null() -> None:
    """Tokens of a document share an expert by chance, which a null over tokens takes for information."""
    rng = np.random.default_rng(1)
    document = np.repeat(np.arange(40), 50)
    label = (np.arange(40) % 2)[document]
    favorite = rng.integers(0, 4, 40)[document]
    naive = moe.routing_information(label, favorite, n_experts=4, permutations=99)
    honest = moe.routing_information(label, favorite, n_experts=4, documents=document, permutations=99)
    assert naive.plain.p_value == 0.01
    assert honest.plain.p_value > 0.05
    assert honest.plain.value == pytest.approx(naive.plain.value)
    assert "of 40 groups" in honest.summary()


def test_vocabulary_should_be_conditioned_away() -> None:
    """A router that reads the token alone tells of the domain, but nothing given the token."""
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, 3000)
    token = rng.integers(0, 10, 3000) + 5 * label
    found = moe.routing_information(
        torch.from_numpy(label),
        torch.from_numpy(token % 8)[:, None],
        n_experts=8,
        tokens=torch.from_numpy(token),
    )
    assert found.plain.p_value == 0.005
    assert found.plain.value > 0.03
    assert found.given_token is not None
    assert found.given_token.value == pytest.approx(0.0, abs=1e-9)
    assert set(found.to_dict()) == {"plain", "given_token", "label_entropy", "share"}


def test_choices_should_weigh_one_over_k() -> None:
    names, table = moe.composition(["b", "a"], [[0, 1], [2, 2]], n_experts=3)
    assert names == ["a", "b"]
    assert table.tolist() == [[0, 0, 1], [0.5, 0.5, 0]]
    with pytest.raises(InputError, match=r"experts of this layer: expected 0 .. 1, got 0 .. 2"):
        moe.composition(["a"], [[0, 2]], n_experts=2)
    with pytest.raises(InputError, match="indices are chosen experts"):
        moe.composition(["a"], [[0.5]], n_experts=2)
    with pytest.raises(InputError, match="describe the same tokens"):
        moe.composition(["a"], [[0], [1]], n_experts=2)


def trained_log(path) -> tuple[moe.Balancer, moe.MetricsLog]:  # type: ignore[no-untyped-def]
    balancer, log = moe.balancer("phi", strength=0.3), moe.MetricsLog(path)
    model = TinyRouter(balancer)
    balancer.add_layer("other", n_experts=4, top_k=1)
    for t in range(5):
        balancer.observe("other", torch.zeros(6, 4), indices=torch.zeros(6, 1).long())
        run_step(model, domain_tokens(64, seed=t), [64])
        log.write(balancer, more={"task_loss": 1.0 / (t + 1)})
    return balancer, log


def test_balancer_should_report_bounded_figures(tmp_path) -> None:  # type: ignore[no-untyped-def]
    balancer, _ = trained_log(tmp_path / "log.jsonl")
    metrics = balancer.metrics()
    routing = moe.routing_metrics(balancer.last.counts())
    for key, value in routing.to_dict().items():
        assert metrics[key] == pytest.approx(value)
    assert metrics["max_vio/worst"] == 3.0
    assert metrics["gate_entropy/mean"] > 0.5
    assert metrics["steps"] == 5
    assert metrics["dual_gap/worst"] >= metrics["dual_gap/mean"] > 0
    assert metrics["dual_gap_floor/mean"] > 0
    assert "bias_range/worst" not in metrics
    assert balancer.last.counts()["gate"].sum() == 64 * TOP_K
    assert moe.balancer("phi").metrics() == {}
    assert all(isinstance(value, float) for value in metrics.values())
    assert balancer.last.counts()["gate"].numel() == EXPERTS


def test_log_should_be_read_back_and_survive_a_cut(tmp_path) -> None:  # type: ignore[no-untyped-def]
    balancer, log = trained_log(tmp_path / "log.jsonl")
    records = moe.read_metrics_log(log.path)
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5]
    assert records[-1]["metrics"]["task_loss"] == 0.2
    assert records[-1]["metrics"]["max_vio/mean"] == balancer.metrics()["max_vio/mean"]
    assert sum(records[0]["loads"]["gate"]) == pytest.approx(1.0, abs=1e-5)
    text = log.path.read_text()
    log.path.write_text(text[:-20])
    assert len(moe.read_metrics_log(log.path)) == 4
    log.path.write_text("{broken\n" + text)
    with pytest.raises(InputError, match="line 1 of"):
        moe.read_metrics_log(log.path)
    with pytest.raises(InputError, match="a log follows finished steps"):
        log.write(moe.balancer("phi"))


def test_pictures_should_show_loads_and_composition(tmp_path) -> None:  # type: ignore[no-untyped-def]
    _, log = trained_log(tmp_path / "log.jsonl")
    figure = moe.plot_loads(log.path)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0].startswith("gate\nMaxVio of the last step")
    assert titles[1] == "other\nMaxVio of the last step 3.00"
    mesh = figure.axes[1].collections[0].get_array()
    assert mesh.max() == pytest.approx(4.0)
    figure.savefig(tmp_path / "loads.svg")
    assert len(moe.plot_loads(log.path, max_layers=1).axes) == 2
    with pytest.raises(InputError, match="needs a log of loads"):
        moe.plot_loads([{"step": 1}])
    names, table = moe.composition(["a", "b", "b"], [[0], [1], [1]], n_experts=3)
    picture = moe.plot_composition(table, labels=names, title="gate")
    picture.savefig(tmp_path / "composition.png")
    assert (tmp_path / "composition.png").stat().st_size > 1000
    shown = picture.axes[0].images[0].get_array()
    # Expert 0 takes a alone: log2(1 / (1/3)); the unused expert has no value.
    assert shown[0, 0] == pytest.approx(math.log2(3))
    assert np.ma.getmaskarray(shown)[:, 2].all() or np.isnan(np.asarray(shown))[:, 2].all()
    with pytest.raises(InputError, match="a composition is a table of counts"):
        moe.plot_composition(table, labels=["a"])


def test_pictures_should_load_matplotlib_on_demand_only() -> None:
    import subprocess
    import sys

    code = "import sys, metier.moe as m; m.plot_loads, m.routing_metrics; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

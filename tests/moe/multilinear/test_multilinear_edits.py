"""Edits of experts, thresholding and fairness; statements 8, 9 and 21."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from metier import moe

FORMS = tuple(moe.FORMS)


def build(form="cp", modes=(5,), **settings):
    rank = None if form == "mxd" else 3
    return moe.MultilinearMoE(7, 6, n_experts=modes, form=form, rank=rank, rng=0, **settings)


def x_of(n=9):
    return torch.randn(n, 7, generator=torch.Generator().manual_seed(1))


def mixture(layer, x, W, b):
    return torch.einsum("bn,bi,nio->bo", layer.gate_values(x), x, W) + layer.gate_values(x) @ b


def experts_of(layer):
    W = torch.stack([layer.expert_weight(n) for n in range(layer.n_joint)])
    return W, torch.stack([layer.expert_bias(n) for n in range(layer.n_joint)])


@pytest.mark.parametrize("modes", [(5,), (3, 4), (3, 3, 4)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_8_switching_off_should_equal_editing_the_tensor(form, modes):
    """Statement 8: 1e-6; leaving the context restores every parameter bit for bit."""
    layer, x = build(form, modes), x_of()
    W, b = experts_of(layer)
    state = copy.deepcopy(layer.state_dict())
    before = layer(x)
    W2, b2 = W.clone(), b.clone()
    W2[[1, 4]], b2[[1, 4]] = 0, 0
    with layer.ablated([1, 4]):
        torch.testing.assert_close(layer(x), mixture(layer, x, W2, b2), rtol=0, atol=1e-6)
        assert not bool(layer.expert_weight(4).any())
        with layer.scaled(4, 3.0):
            assert not bool(layer.expert_weight(4).any())
    W2, b2 = W.clone(), b.clone()
    W2[2], b2[2] = 2.5 * W2[2], 2.5 * b2[2]
    with layer.scaled(2, 2.5):
        torch.testing.assert_close(layer(x), mixture(layer, x, W2, b2), rtol=0, atol=2e-6)
    assert layer.state_dict().keys() == state.keys()
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in state.items())
    assert torch.equal(layer(x), before)


@pytest.mark.parametrize("form", FORMS)
def test_8_zeroing_the_expert_row_should_be_the_same(form):
    layer, x = build(form), x_of()
    zeroed = copy.deepcopy(layer)
    with torch.no_grad():
        zeroed.factors.experts[0][3] = 0
    with layer.ablated(3):
        torch.testing.assert_close(layer(x), zeroed(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("modes", [(5,), (3, 4)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_weights_and_biases_should_be_editable(form, modes, tmp_path):
    layer, x = build(form, modes), x_of()
    W, b = experts_of(layer)
    draw = torch.Generator().manual_seed(4)
    delta, shift = torch.randn(7, 6, generator=draw), torch.randn(6, generator=draw)
    W2, b2 = W.clone(), b.clone()
    W2[2] += delta
    b2[0] += shift
    with layer.edited(weight={2: delta}, bias={0: shift}):
        torch.testing.assert_close(layer(x), mixture(layer, x, W2, b2), rtol=0, atol=1e-5)
        torch.testing.assert_close(layer.expert_weight(2), W2[2], rtol=0, atol=1e-5)
        torch.testing.assert_close(layer.expert_bias(0), b2[0], rtol=0, atol=1e-6)
    assert layer.edits is None
    layer.edit_(weight={2: delta}, bias={0: shift}).edit_(scale={2: 0.0})
    W2[2], b2[2] = 0, 0
    torch.testing.assert_close(layer(x), mixture(layer, x, W2, b2), rtol=0, atol=1e-5)
    layer.save_pretrained(tmp_path)
    again = moe.MultilinearMoE.from_pretrained(tmp_path)
    assert torch.equal(again(x), layer(x))
    torch.testing.assert_close(layer.double()(x.double()).float(), again(x), rtol=1e-4, atol=1e-5)


def test_an_error_inside_the_context_should_restore():
    layer = build()
    with pytest.raises(RuntimeError, match="stop"), layer.ablated(1):
        raise RuntimeError("stop")
    assert layer.edits is None


def test_a_permanent_edit_inside_a_context_should_not_be_lost_in_silence():
    layer = build()
    with pytest.warns(UserWarning, match="made permanent inside a context is undone"), layer.ablated(1):
        layer.edit_(scale={2: 0.0})
    assert layer.edits is None
    with layer.ablated(1), layer.scaled(2, 0.5):
        pass
    assert layer.edits is None


@pytest.mark.parametrize("make", [build, lambda: moe.MultilinearMLP(7, 9, 6, n_experts=5, rank=3)])
def test_loading_a_state_should_bring_its_edits(make):
    """A fresh module has no place for edits, and torch would drop them without a word."""
    old, new = make(), make()
    (old if isinstance(old, moe.MultilinearMoE) else old.down).edit_(scale={0: 0.0}, bias={1: torch.ones(6)})
    new.load_state_dict(old.state_dict())
    torch.testing.assert_close(new(x_of()), old(x_of()), rtol=0, atol=0)
    new.load_state_dict(old.state_dict())
    assert torch.equal(new(x_of()), old(x_of()))


def test_a_profile_should_be_that_of_evaluation():
    """Batch norm would normalize by the sub-population and remember it."""
    layer = build(norm="batch")
    layer(x_of(200))
    statistics = layer.gate.batch_norm.running_mean.clone()
    profile = moe.expert_profile(layer, 3 + x_of())
    assert torch.equal(layer.gate.batch_norm.running_mean, statistics)
    assert layer.training
    assert torch.equal(profile, layer.eval().gate_values(3 + x_of()).mean(0))


def test_edits_of_wrong_shape_should_be_refused():
    layer = build()
    with pytest.raises(
        ValueError, match=r"weight says what is added to an expert: expected a tensor of shape \(7, 6\)"
    ):
        layer.edit_(weight={0: torch.ones(6, 7)})
    with pytest.raises(ValueError, match="bias says what is added"):
        layer.edit_(bias={0: torch.ones(7)})
    with pytest.raises(ValueError, match=r"weight says what is added .* got ndarray"):
        layer.edit_(weight={0: np.ones((7, 6))})
    with pytest.raises(ValueError, match=r"bias says what is added .* got NaN or infinity"):
        layer.edit_(bias={0: torch.full((6,), torch.nan)})
    with pytest.raises(ValueError, match="scale"):
        layer.edit_(scale={0: float("nan")})
    with pytest.raises(ValueError, match=r"several experts are a list: \[1, 2\]"), layer.ablated((1, 2)):
        pass
    assert layer.edits is None


def test_blocks_should_switch_experts_off_in_every_layer():
    block = moe.MultilinearGLU(7, 9, 6, n_experts=5, rank=3, rng=0)
    before = block(x_of())
    with block.ablated(range(5)):
        assert not bool(block(x_of()).any())
    assert torch.equal(block(x_of()), before)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("modes", [(5,), (3, 4)], ids=str)
def test_9_thresholding_should_follow_the_additive_formula(form, modes):
    """Statement 9: y_o + lambda mean(a)^T a(z) within 1e-6; lambda = 0 is the identity; others unchanged."""
    layer, x, rare = build(form, modes), x_of(), x_of(40)[20:] + 1
    profile = moe.expert_profile(layer, rare)
    torch.testing.assert_close(profile, layer.gate_values(rare).mean(0))
    before = layer(x)
    with moe.thresholded(layer, profile, output=4, amount=0.7):
        moved = layer(x)
    expected = before.clone()
    expected[:, 4] += 0.7 * layer.gate_values(x) @ profile
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-6)
    with moe.thresholded(layer, profile, output=4, amount=0.0):
        assert torch.equal(layer(x), before)
    assert layer.edits is None


def test_9_a_thresholded_cp_layer_should_be_one_component_more():
    """Statement 9: plain CP of rank R + 1 equals the additive formula within 1e-6, and saves as such."""
    layer, x = build(), x_of()
    profile = moe.expert_profile(layer, x_of(40) + 1)
    expected = layer(x).clone()
    expected[:, 4] += 0.7 * layer.gate_values(x) @ profile
    plain = moe.absorbed(moe.threshold_(layer, profile, output=4, amount=0.7))
    assert (plain.rank, plain.edits) == (4, None)
    assert plain.state_dict().keys() == build().state_dict().keys()
    torch.testing.assert_close(plain(x), expected, rtol=0, atol=1e-6)
    layer.edit_(scale={2: 0.3}, weight={1: torch.ones(7, 6)})
    torch.testing.assert_close(moe.absorbed(layer)(x), layer(x), rtol=0, atol=1e-5)
    assert moe.absorbed(layer).rank == 5


def test_absorbing_should_say_what_it_cannot():
    with pytest.raises(ValueError, match="edits become components of a CP layer with one expert mode"):
        moe.absorbed(build("tr"))
    with pytest.raises(ValueError, match="needs the bias slot"):
        moe.absorbed(build(bias=False).edit_(bias={0: torch.ones(6)}))
    with pytest.raises(ValueError, match="a profile has one entry per joint expert"):
        moe.threshold_(build(), torch.ones(4), output=0, amount=1.0)
    with pytest.raises(
        ValueError, match=r"thresholding moves one output: expected an index from 0 to 5, got 6"
    ):
        moe.threshold_(build(), torch.ones(5), output=6, amount=1.0)
    with pytest.raises(ValueError, match="a profile is the mean over a sub-population"):
        moe.expert_profile(build(), torch.zeros(0, 7))


def test_an_edit_should_be_kept_only_if_others_do_not_lose():
    draw = torch.Generator().manual_seed(0)
    x, target = torch.randn(400, 7, generator=draw), torch.randn(400, 6, generator=draw)
    layer = build()
    before = copy.deepcopy(layer.state_dict())

    def losses():
        return (layer(x) - target).square().mean(-1).numpy()

    harmful = moe.keep_if_harmless(layer, losses, margin=0.01, bias={n: 10 * torch.ones(6) for n in range(5)})
    assert not harmful.kept
    assert layer.edits is None
    assert harmful.decision.verdict == "hurts"
    assert "Edit not kept" in harmful.summary()
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in before.items())
    harmless = moe.keep_if_harmless(layer, losses, margin=0.05, bias={0: 1e-4 * torch.ones(6)})
    assert harmless.kept
    assert layer.edits is not None
    assert harmless.to_dict()["kept"] is True


@given(
    seed=st.integers(0, 10_000), n=st.integers(20, 200), groups=st.integers(2, 4), skew=st.floats(0.1, 0.9)
)
def test_fairness_should_equal_its_counts(seed, n, groups, skew):
    """In loops over rows, 1e-12; every group has a positive and a negative label."""
    draw = np.random.default_rng(seed)
    group = np.concatenate([np.repeat(np.arange(groups), 2), draw.integers(groups, size=n)])
    truth = np.concatenate([np.tile([0, 1], groups), draw.random(n) < skew]).astype(int)
    guess = (draw.random(len(truth)) < skew).astype(int)
    ours = moe.group_fairness(truth, guess, group)
    right, found = np.zeros(groups), np.zeros(groups)
    for g, t, p in zip(group, truth, guess, strict=True):
        right[g] += t == p
        found[g] += t == p == 1
    accuracy, rate = right / np.bincount(group), found / np.bincount(group[truth == 1])
    np.testing.assert_allclose(ours.accuracy, accuracy, rtol=0, atol=1e-12)
    assert abs(ours.worst_accuracy - min(accuracy)) <= 1e-12
    assert abs(ours.accuracy_spread - np.std(accuracy)) <= 1e-12
    assert abs(ours.opportunity_gap - (max(rate) - min(rate))) <= 1e-12
    assert ours.to_dict()["counts"] == tuple(np.bincount(group))


@pytest.mark.slow
@given(
    seed=st.integers(0, 10_000), n=st.integers(20, 200), groups=st.integers(2, 4), skew=st.floats(0.1, 0.9)
)
@settings(max_examples=40, deadline=None)
def test_fairness_should_equal_fairlearn(seed, n, groups, skew):
    """1e-12, every group with a positive and a negative label."""
    from fairlearn.metrics import MetricFrame, equal_opportunity_difference
    from sklearn.metrics import accuracy_score

    draw = np.random.default_rng(seed)
    group = np.concatenate([np.repeat(np.arange(groups), 2), draw.integers(groups, size=n)])
    truth = np.concatenate([np.tile([0, 1], groups), draw.random(n) < skew]).astype(int)
    guess = (draw.random(len(truth)) < skew).astype(int)
    ours = moe.group_fairness(truth, guess, group)
    frame = MetricFrame(metrics=accuracy_score, y_true=truth, y_pred=guess, sensitive_features=group)
    assert abs(ours.worst_accuracy - frame.group_min()) <= 1e-12
    assert abs(ours.accuracy_spread - np.std(frame.by_group.to_numpy(dtype=float))) <= 1e-12
    theirs = equal_opportunity_difference(truth, guess, sensitive_features=group)
    assert abs(ours.opportunity_gap - theirs) <= 1e-12
    np.testing.assert_allclose(ours.accuracy, frame.by_group.to_numpy(dtype=float), rtol=0, atol=1e-12)
    assert ours.to_dict()["counts"] == tuple(np.bincount(group))


def test_fairness_should_refuse_rows_that_do_not_fit():
    with pytest.raises(ValueError, match="labels, predictions and groups belong to the same rows"):
        moe.group_fairness([1, 0], [1, 0], [1])
    with pytest.raises(ValueError, match="rows labelled 'yes', got none"):
        moe.group_fairness([1, 0], [1, 0], ["a", "b"], positive="yes")

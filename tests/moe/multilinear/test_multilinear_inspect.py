"""Usage, similarity, polysemanticity, probes and pictures of experts; statements 19 and 20."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import nn

from metier import moe
from metier.moe import inspect
from metier.moe.inspect.polysemanticity import _report

FORMS = tuple(moe.FORMS)


def build(form="cp", modes=(12,), size_out=6, **settings):
    rank = None if form == "mxd" else 3
    return moe.MultilinearMoE(7, size_out, n_experts=modes, form=form, rank=rank, rng=0, **settings)


def x_of(n=50):
    return torch.randn(n, 7, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("modes", [(12,), (3, 4)], ids=str)
def test_usage_should_equal_the_whole_table(modes):
    """Streaming over batches gives what all coefficients at once give."""
    layer, x = build(modes=modes), x_of(60)
    a = layer.gate_values(x).detach()
    with inspect.watch(layer, k=4) as seen:
        for part in x.reshape(5, 3, 4, 7):
            layer(part)
    layer(x)  # not watched any more
    usage = seen.usage()["layer"]
    assert usage.rows == 60
    torch.testing.assert_close(usage.load, a.mean(0))
    assert usage.support == pytest.approx(float((a > 0).sum(-1).float().mean()))
    torch.testing.assert_close(usage.largest, a.amax(0))
    for n in range(12):
        values, rows = a[:, n].sort(descending=True, stable=True)
        used = values[:4] > 0
        assert usage.top_rows[n].tolist() == [
            int(r) if u else -1 for r, u in zip(rows[:4], used, strict=True)
        ]
        torch.testing.assert_close(usage.top_values[n][used], values[:4][used])
    assert usage.breadth == pytest.approx(
        float(-(a.mean(0).clamp_min(1e-30).log() * a.mean(0)).sum()), abs=1e-5
    )
    assert usage.to_dict()["rows"] == 60
    assert "layer: 12 experts over 60 rows" in usage.summary()


def test_dead_experts_and_masks_should_be_seen():
    layer = build(gate="softmax", norm="none")
    with torch.no_grad():
        layer.gate.weight[3] = 0
        layer.gate.weight[3, 0] = -1e4
    x = x_of(40)
    x[:, 0] = x[:, 0].abs() + 1
    with inspect.watch(layer) as seen:
        mask = torch.arange(40) % 2 == 0
        seen.only(mask)
        layer(x)
        with pytest.raises(ValueError, match=r"one entry per row that goes through layer: expected 7"):
            layer(x[:7])
    usage = seen.usage()["layer"]
    assert usage.dead() == [3]
    assert usage.rows == 20
    torch.testing.assert_close(usage.load, layer.gate_values(x)[mask].mean(0))
    assert set(usage.top_rows[usage.top_rows >= 0].tolist()) <= set(range(0, 40, 2))


def test_watching_should_take_memory_of_n_times_k():
    layer = build(modes=(64,))
    with inspect.watch(layer, k=3) as seen:
        for _ in range(30):
            layer(torch.randn(500, 7))
    usage = seen.usage()["layer"]
    assert usage.rows == 30 * 500
    assert usage.top_values.shape == usage.top_rows.shape == (64, 3)


def test_watching_should_name_layers_of_a_model():
    model = nn.Sequential(moe.MultilinearMLP(7, 9, n_experts=5, rank=2), build())
    with inspect.watch(model, layers=["0"]) as seen:
        model(x_of())
    assert list(seen.usage()) == ["0"]
    with pytest.raises(ValueError, match=r"there are multilinear layers to watch: expected 0, 1, got 7"):
        inspect.watch(model, layers=["7"])
    with pytest.raises(ValueError, match="a model that holds multilinear layers"):
        inspect.watch(nn.Linear(2, 2))


@pytest.mark.parametrize("modes", [(12,), (3, 4)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_similarity_should_equal_built_experts(form, modes):
    layer = build(form, modes, dtype=torch.float64).edit_(scale={2: 0.5})
    W = torch.stack([layer.expert_weight(n).flatten() for n in range(12)])
    torch.testing.assert_close(inspect.expert_gram(layer), W @ W.T, rtol=1e-9, atol=1e-12)
    cosines = nn.functional.cosine_similarity(W[:, None], W[None], dim=-1)
    torch.testing.assert_close(inspect.expert_similarity(layer), cosines, rtol=1e-9, atol=1e-9)
    assert inspect.span_dimension(layer) == int(torch.linalg.matrix_rank(W, rtol=1e-6))


def test_span_should_be_that_of_the_form():
    layer = build("tr", (64,))
    with torch.no_grad():
        for p in layer.factors.experts:
            p.normal_(generator=torch.Generator().manual_seed(0))
    assert inspect.span_dimension(layer) == 16
    assert inspect.span_dimension(build("cp", (64,))) == 3


@pytest.mark.parametrize("n_classes", [2, 5, 100])
def test_19_polysemanticity_should_have_its_known_values(n_classes):
    """Statement 19: one class 0, two equal 1/sqrt(2), all equal sqrt(1 - 1/C), within 1e-12."""
    one, two = np.zeros(n_classes), np.zeros(n_classes)
    one[1], two[:2] = 0.3, 0.2
    assert abs(inspect.class_polysemanticity(one)) <= 1e-12
    assert abs(inspect.class_polysemanticity(two) - 2**-0.5) <= 1e-12
    everything = inspect.class_polysemanticity(np.full(n_classes, 0.1))
    assert abs(everything - (1 - 1 / n_classes) ** 0.5) <= 1e-12
    assert np.isnan(inspect.class_polysemanticity(np.zeros(n_classes)))


def planted(n_experts=4, per_class=60):
    """A layer whose expert c alone makes class c, and the rows of all classes."""
    layer = moe.MultilinearMoE(
        n_experts, n_experts, n_experts=n_experts, rank=n_experts, norm="none", bias=False
    )
    with torch.no_grad():
        layer.gate.weight.copy_(20 * torch.eye(n_experts))
        for p in layer.factors.parameters():
            p.copy_(torch.eye(n_experts))
    labels = torch.arange(n_experts).repeat_interleave(per_class)
    return layer, torch.eye(n_experts)[labels], labels


def test_20_planted_specialists_should_score_zero_below_their_null():
    """Statement 20: flips, null and interval are always there; nothing is warned at 60 flips per expert."""
    layer, x, labels = planted()
    report = inspect.polysemanticity(
        layer, lambda: (layer(x) + 1e-3 * x.flip(1)).log_softmax(-1), labels, rng=1
    )
    assert report.scores.tolist() == [0.0] * 4
    assert (report.lost.tolist(), report.gained.tolist()) == ([60] * 4, [0] * 4)
    assert report.interval == (0.0, 0.0)
    assert report.null_interval[0] > 0.5
    assert report.median_flips == 60
    assert np.diag(report.graded).max() < -0.1
    assert "60 flips per expert (median), 240 lost, 0 gained" in report.summary()
    assert "The same flips on random rows: 0." in report.summary()
    groups = inspect.polysemanticity(
        layer, lambda: (layer(x) + 1e-3 * x.flip(1)).log_softmax(-1), labels, experts=[[0, 1], [2, 3]]
    )
    np.testing.assert_allclose(groups.scores, 2**-0.5)


@pytest.mark.parametrize(("base", "special"), [(0.01, 0.3), (0.06, 0.06)], ids=["focused", "spread"])
def test_20_intervals_should_cover_what_this_many_rows_give(base, special):
    """Statement 20: 95 % intervals cover at least 33 of 40 times (a true 90 % would fall short 1 in 50).

    Plain percentiles cover the score of spread effects 1 time in 40: resampling flips lowers it.
    """
    draw, shape, n = np.random.default_rng(1), (12, 6), 400
    rates = np.full(shape, base)
    rates[np.arange(12), np.arange(12) % 6] = special

    def world():
        classes = draw.integers(6, size=n)
        return -(draw.random((12, n)) < rates[:, classes]).astype(np.int8), classes

    def report(samples):
        flips, classes = world()
        return _report(flips, classes, np.zeros(shape), samples=samples, level=0.95, rng=0)

    expected = np.mean([report(1).mean for _ in range(300)])
    seen = [report(60) for _ in range(40)]
    assert all(r.interval[0] <= r.mean <= r.interval[1] for r in seen)
    assert sum(r.interval[0] <= expected <= r.interval[1] for r in seen) >= 33


def test_20_few_flips_should_warn_and_be_shown():
    """Statement 20: below 5 flips per expert it warns; experts without effect are counted, not scored."""
    layer, x, labels = planted(per_class=2)
    with pytest.warns(UserWarning, match=r"median expert flips 2 predictions, fewer than 5"):
        report = inspect.polysemanticity(layer, lambda: (layer(x) + 1e-3 * x.flip(1)).log_softmax(-1), labels)
    assert report.few
    assert "Fewer than 5 flips per expert" in report.summary()
    with torch.no_grad():
        layer.factors.experts[0][3] = 0
    with pytest.warns(UserWarning, match="says little here"):
        report = inspect.polysemanticity(layer, lambda: (layer(x) + 1e-3 * x.flip(1)).log_softmax(-1), labels)
    assert np.isnan(report.scores[3])
    assert (report.affected, len(report.scores)) == (3, 4)
    assert report.to_dict()["scores"][3] is None


def test_polysemanticity_should_refuse_labels_that_do_not_fit():
    layer, x, labels = planted()
    with pytest.raises(ValueError, match="labels number the classes of the rows"):
        inspect.polysemanticity(layer, lambda: layer(x).log_softmax(-1), torch.full((240,), 4))
    with pytest.raises(ValueError, match="labels number the classes of the rows"):
        inspect.polysemanticity(layer, lambda: layer(x).log_softmax(-1), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"labels number the classes .* of type <U3"):
        inspect.polysemanticity(layer, lambda: layer(x).log_softmax(-1), ["cat"] * 240)
    with pytest.raises(ValueError, match="NaN in 240 of 240 rows"):
        inspect.polysemanticity(layer, lambda: layer(x) * torch.nan, labels)
    with pytest.raises(ValueError, match="level is a fraction"):
        inspect.polysemanticity(layer, lambda: layer(x).log_softmax(-1), labels, level=95)


def test_mass_matched_groups_should_carry_equal_loads():
    load = np.random.default_rng(0).dirichlet(np.ones(200))
    groups = inspect.mass_matched_groups(load, 8)
    assert sorted(n for group in groups for n in group) == list(range(200))
    masses = [load[group].sum() for group in groups]
    assert max(masses) - min(masses) < 0.01
    with pytest.raises(ValueError, match="every group holds an expert"):
        inspect.mass_matched_groups([1.0], 2)


def test_information_should_stand_out_of_its_null_only_where_there_is_some():
    layer, x, labels = planted()
    told = inspect.class_information(layer.gate_values(x), labels.numpy())
    assert told.value == pytest.approx(np.log(4), abs=1e-3)
    assert told.p_value < 0.01
    shuffled = inspect.class_information(
        layer.gate_values(x), labels.numpy()[np.random.default_rng(0).permutation(240)]
    )
    assert shuffled.value < told.value / 10
    assert shuffled.null_mean > 0


def test_probes_should_find_the_expert_of_a_class():
    layer, x, labels = planted()
    probes = inspect.sparse_probe(layer.gate_values(x), labels.numpy() == 2, k=(1, 3))
    assert probes[0].experts == (2,)
    assert [p.accuracy for p in probes] == [1.0, 1.0]
    assert probes[0].interval[0] < 1.0 <= probes[0].interval[1] + 1e-9
    assert probes[0].majority < 0.9
    chance = inspect.sparse_probe(
        np.random.default_rng(0).dirichlet(np.ones(9), 400), np.arange(400) % 2, k=(2,)
    )[0]
    assert chance.interval[0] < 0.6
    groups = np.repeat(np.arange(48), 5)
    held = inspect.sparse_probe(layer.gate_values(x), labels.numpy() == 2, k=(1,), groups=groups)[0]
    assert held.n % 5 == 0
    with pytest.raises(ValueError, match="a probe tells two labels apart"):
        inspect.sparse_probe(layer.gate_values(x), labels.numpy())
    # Rows that repeat their group's first one tell no more than the groups do.
    repeated = np.random.default_rng(0).dirichlet(np.ones(4), 60)
    half = np.arange(60) % 2
    alone = inspect.sparse_probe(repeated, half, k=2)[0]
    eight = inspect.sparse_probe(
        np.repeat(repeated, 8, axis=0), np.repeat(half, 8), k=2, groups=np.repeat(np.arange(60), 8)
    )[0]
    width = lambda probe: probe.interval[1] - probe.interval[0]  # noqa: E731
    assert width(eight) >= 0.9 * width(alone)
    with pytest.raises(ValueError, match=r"groups say which rows belong together.* got 5"):
        inspect.sparse_probe(layer.gate_values(x), labels.numpy() == 2, groups=np.arange(5))
    with pytest.raises(ValueError, match="held_out is a fraction"):
        inspect.sparse_probe(layer.gate_values(x), labels.numpy() == 2, held_out=0)
    with pytest.raises(ValueError, match="k <= 4"):
        inspect.sparse_probe(layer.gate_values(x), labels.numpy() == 2, k=(9,))


def test_pictures_should_be_drawn():
    layer, x, labels = planted()
    with inspect.watch(layer, k=3) as seen:
        layer(x)
    usage = seen.usage()["layer"]
    images = np.random.default_rng(0).random((240, 8, 8))
    sheet = inspect.expert_sheet(usage, images, experts=[0, 2], columns=3)
    assert "expert 2" in sheet.axes[3].get_ylabel()
    assert len(sheet.axes[0].images) == 1
    words = inspect.expert_sheet(usage, [f"word {i} $x" for i in range(240)], columns=2)
    first = int(usage.top_rows[int(usage.load.argsort(descending=True)[0]), 0])
    assert words.axes[0].texts[0].get_text() == f"word {first} $x"
    table = inspect.class_map(layer.gate_values(x), labels.numpy(), names=["a", "b", "c", "d"])
    np.testing.assert_allclose(np.asarray(table.axes[0].images[0].get_array()), np.eye(4), atol=1e-3)
    for figure in (sheet, words, table, inspect.load_histogram(usage)):
        file = io.BytesIO()
        figure.savefig(file, format="svg")
        assert b"</svg>" in file.getvalue()
    with pytest.raises(ValueError, match="a sheet shows the inputs that were watched"):
        inspect.expert_sheet(usage, images[:5])

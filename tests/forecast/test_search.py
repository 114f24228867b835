"""Which run a search keeps, what seeds it, and the true partition's gain (statement 4)."""

from __future__ import annotations

import numpy as np
import pytest
from panels import regimes
from slow_reference import naive_data, random_design, table_of

from metier import data
from metier.forecast.partition.criterion import GramCriterion, prior_from
from metier.forecast.partition.search import CLUSTER_PRICE, Search, refit_partition
from metier.forecast.partition.seeding import feature_clusters, random_balanced, seed_chains
from metier.forecast.regression.design import Design
from metier.forecast.regression.losses import ForecastLoss
from metier.forecast.regression.scaling import fit_scaling

SQUARED = ForecastLoss(name="squared")


def design_of(values: np.ndarray, lags: tuple[int, ...] = (1, 2), train: int = 100) -> Design:
    n, t = values.shape
    return Design(
        values=fit_scaling(values, train).apply(values),
        first=np.zeros(n, dtype=np.intp),
        stop=np.full(n, t),
        lags=lags,
        season_length=None,
        common=np.zeros((t, 0)),
    )


def search_of(**options) -> Search:
    return Search(
        **{"n_clusters": (2, 3), "shrinkage": (0.0, 1.0), "n_starts": 3, "loss": SQUARED, **options}
    )


@pytest.mark.parametrize(
    "loss", [SQUARED, ForecastLoss(name="pinball", quantiles=(0.1, 0.9))], ids=lambda x: x.name
)
def test_the_kept_run_should_have_the_least_priced_objective(loss: ForecastLoss) -> None:
    table = table_of(design_of(regimes(1)), 100, ((100, 120),))
    found = search_of(loss=loss, random_starts=loss.name == "pinball").run(table)
    assert len(found.runs) == 2 * 2 * 3 * 2
    assert len(found.partitions) == 2
    for window, kept in enumerate(found.partitions):
        mine = [run for run in found.runs if run.key.window == window]
        prices = [
            run.objective / found.base_loss[window] + CLUSTER_PRICE * run.n_clusters / 16 for run in mine
        ]
        best = min(range(len(mine)), key=lambda j: (prices[j], mine[j].n_clusters, mine[j].key))
        assert kept is mine[best]
        assert kept.objective < found.base_loss[window]


def test_base_loss_should_be_the_global_models_mean_val_loss() -> None:
    design = design_of(regimes(2))
    found = search_of().run(table_of(design, 100))
    losses = []
    for i in range(16):
        X, y = naive_data(design, i, [(100, 150)])
        losses.append(np.mean((y - X @ found.prior.theta) ** 2))
    assert found.base_loss[0] == pytest.approx(np.mean(losses), rel=1e-10)


def test_a_search_should_find_two_clear_regimes() -> None:
    for seed in range(5):
        found = search_of(n_clusters=(2,), rng=seed).run(table_of(design_of(regimes(seed, gap=1.4)), 100))
        labels = found.partitions[0].labels
        assert (labels[::2] == labels[0]).all()
        assert (labels[1::2] == 1 - labels[0]).all()


def test_equal_seeds_should_give_equal_searches_and_others_their_own() -> None:
    table = table_of(design_of(regimes(3, gap=0.2)), 100)
    one, same, other = (search_of(rng=seed).run(table) for seed in (0, 0, 1))
    assert [r.trace for r in one.runs] == [r.trace for r in same.runs]
    assert [r.trace for r in one.runs] != [r.trace for r in other.runs]


def test_too_few_series_should_leave_no_partition() -> None:
    found = search_of(n_clusters=()).run(table_of(design_of(regimes(0, n_series=3)), 100))
    assert found.partitions == (None,)
    assert found.runs == ()
    assert np.isfinite(found.base.theta).all()
    empty = search_of(n_clusters=()).run(table_of(design_of(regimes(0)), 100))
    assert empty.partitions == (None,)


@pytest.mark.parametrize("loss", ["squared", "huber", "pinball"])
def test_as_many_clusters_as_series_should_work(loss: str) -> None:
    search = search_of(
        n_clusters=(3,),
        loss=ForecastLoss(name=loss, quantiles=(0.5,)),
        random_starts=loss == "pinball",
    )
    found = search.run(table_of(design_of(regimes(0, n_series=3)), 100))
    assert np.isfinite(found.partitions[0].theta).all()
    assert 1 <= found.partitions[0].n_clusters <= 3


# seeds


def test_seeds_should_be_drawn_by_their_distance() -> None:
    """k-means++ by a loop: the same chain from the same draws."""
    design = design_of(regimes(4))
    table = table_of(design, 100)
    local = np.random.default_rng(0).normal(size=(16, 3))
    chains = seed_chains(table, local, rngs=[np.random.default_rng(s) for s in (5, 6)], length=4)
    grams = [(X.T @ X) for X, _ in (naive_data(design, i, [(2, 100)]) for i in range(16))]
    for chain, seed in zip(chains, (5, 6), strict=True):
        rng, chosen = np.random.default_rng(seed), []
        for step in range(4):
            weight = np.ones(16)
            if step:
                weight = np.array(
                    [
                        min((local[i] - local[j]) @ grams[i] @ (local[i] - local[j]) for j in chosen)
                        for i in range(16)
                    ]
                )
                weight[chosen] = 0.0
            chosen.append(int(rng.choice(16, p=weight / weight.sum())))
        assert chain.tolist() == chosen
        assert len(set(chosen)) == 4


def test_seeds_should_survive_equal_local_models_and_skip_inactive_series() -> None:
    active = np.arange(6) != 2
    table = table_of(random_design(), 45, active=active)
    chains = seed_chains(table, np.ones((6, 4)), rngs=[np.random.default_rng(0)] * 3, length=5)
    assert chains.shape == (3, 5)
    assert 2 not in chains


def test_feature_clusters_should_divide_by_coefficients_alone() -> None:
    local = np.concatenate(
        [np.repeat([[0.9, 0.0], [-0.9, 0.0]], 6, axis=0), np.random.default_rng(0).normal(size=(12, 1))],
        axis=1,
    )
    labels = feature_clusters(local, 2, n_clusters=2, rng=0)
    assert (labels[:6] == labels[0]).all()
    assert (labels[6:] == 1 - labels[0]).all()


@pytest.mark.parametrize(("n", "k"), [(10, 3), (4, 4), (7, 1)])
def test_random_clusters_should_be_balanced(n: int, k: int) -> None:
    sizes = np.bincount(random_balanced(n, n_clusters=k, rng=0), minlength=k)
    assert sizes.max() - sizes.min() <= 1
    assert (
        random_balanced(n, n_clusters=k, rng=0).tolist() == random_balanced(n, n_clusters=k, rng=0).tolist()
    )
    if n == 10:
        assert (
            random_balanced(n, n_clusters=k, rng=0).tolist()
            != random_balanced(n, n_clusters=k, rng=1).tolist()
        )


# the oracle


@pytest.mark.parametrize("name", ["strong", "medium", "weak", "small"])
def test_the_true_partition_should_gain_what_the_formula_says(name: str) -> None:
    """Statement 4: T = 4000 and the true partition, within 0.3 percentage points of the loss."""
    panel = data.simulate_regimes(name, rng=3, n_train=4000, n_val=1, n_test=12_000, n_series=80)
    design = design_of(panel.values, lags=tuple(range(1, 9)), train=4000)
    table = table_of(design, 4000)
    prior = prior_from(table, penalty=1.0)
    models = refit_partition(
        GramCriterion(table=table, prior=prior),
        panel.labels.astype(np.int16),
        n_clusters=panel.n_regimes,
        shrinkage=0.0,
    )
    squares = np.zeros(2)
    for i in range(80):
        X, y, _ = design.rows(np.array([i]), 4001, design.n_steps)
        squares += [
            ((y[0] - X[0] @ prior.theta) ** 2).mean(),
            ((y[0] - X[0] @ models.theta[panel.labels[i]]) ** 2).mean(),
        ]
    gain = 1.0 - squares[1] / squares[0]
    assert gain == pytest.approx(panel.oracle_gain(lags=8), abs=0.003)
    assert panel.oracle_gain(lags=8) > 0.003


def test_more_clusters_than_series_should_become_one_per_series() -> None:
    found = search_of(n_clusters=(4,)).run(table_of(design_of(regimes(0, n_series=3)), 100))
    assert found.partitions[0] is not None
    assert found.partitions[0].n_clusters <= 3
    assert {run.key.n_clusters for run in found.runs} == {3}

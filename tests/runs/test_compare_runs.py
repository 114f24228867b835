import numpy as np
import pytest

from metier.core import compare_paired
from metier.core.errors import InputError
from metier.runs import DataUsed, Losses, Result, Run, compare_runs

KEYS = tuple(f"h{k}" for k in range(40))


def losses(seed, keys=KEYS, **changes):
    values = np.random.default_rng(seed).normal(size=len(keys)) ** 2
    fields = {"id": "test", "description": "test loss", "unit": "hour", "keys": keys, "values": values}
    return Losses(**(fields | changes))


def write(folder, *, seed=0, config=None, loss=None, data="a", **changes):
    fields = {"study": "toy", "family": "core", "size": "tour", "seed": seed, "title": "t", "question": "q"}
    used = (DataUsed(name="panel", sha256=data * 64),) if data else ()
    result = Result(**(fields | {"losses": (loss or losses(seed),), "data": used} | changes))
    with Run.create(
        folder, study=result.study, size=result.size, config=config or {"gate": "mean"}, seed=seed
    ) as run:
        run.finish(result)
    return folder


@pytest.mark.parametrize("dependence", ["independent", "time", "groups"])
def test_one_seed_should_be_the_paired_comparison(tmp_path, dependence):
    groups = [key[1] for key in KEYS] if dependence == "groups" else None
    a, b = (losses(seed, dependence=dependence, groups=groups) for seed in (1, 2))
    # B's units come in another order: pairing is by key.
    shuffled = losses(
        2, KEYS[::-1], values=b.values[::-1], dependence=dependence, groups=groups and groups[::-1]
    )
    result = compare_runs(
        write(tmp_path / "a", loss=a), write(tmp_path / "b", loss=shuffled, config={"gate": "crossfit"})
    )
    expected = compare_paired(a.values, b.values, dependence=groups or dependence)
    assert result.losses[0].comparison == expected
    assert result.differences == {"gate": ("mean", "crossfit")}


def test_seeds_on_the_same_data_should_be_averaged_by_unit(tmp_path):
    for seed in (0, 1, 2):
        write(tmp_path / "a" / f"seed-{seed}", seed=seed, loss=losses(seed))
        write(tmp_path / "b" / f"seed-{seed}", seed=seed, loss=losses(10 + seed))
    result = compare_runs(tmp_path / "a", tmp_path / "b")
    a, b = (np.mean([losses(k + s).values for s in range(3)], axis=0) for k in (0, 10))
    assert result.seeds == (0, 1, 2)
    assert result.losses[0].comparison.gain == pytest.approx((b - a).mean(), rel=1e-12)
    assert result.losses[0].comparison.n == 40


def test_seeds_with_data_of_their_own_should_be_the_groups(tmp_path):
    for seed in (0, 1, 2):
        write(tmp_path / "a" / f"seed-{seed}", seed=seed, loss=losses(seed), data=str(seed))
        write(tmp_path / "b" / f"seed-{seed}", seed=seed, loss=losses(10 + seed), data=str(seed))
    comparison = compare_runs(tmp_path / "a", tmp_path / "b").losses[0].comparison
    assert (comparison.n, comparison.unit, comparison.method) == (3, "groups", "clustered")


def test_units_of_one_side_should_be_counted_and_left_out(tmp_path):
    a, b = losses(1), losses(2, KEYS[:30])
    result = compare_runs(write(tmp_path / "a", loss=a), write(tmp_path / "b", loss=b)).losses[0]
    assert result.unpaired == 10
    assert result.comparison.gain == pytest.approx(np.mean(b.values) - np.mean(a.values[:30]), rel=1e-12)


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"study": "else"}, "agree in study: expected study 'toy', as in A, got 'else' in B"),
        ({"size": "full"}, "agree in size: expected size 'tour'"),
        ({"seed": 3}, r"agree in seeds: expected seeds \[0\], as in A, got \[3\] in B"),
        (
            {"data": "b"},
            r"agree in the data \(panel, seed 0\): expected .* 'aaaaaaaaaaaa', as in A, got 'bbbbbbbbbbbb'",
        ),
        ({"data": ""}, "got 'not used' in B"),
        (
            {"config": {"gate": "mean", "horizon": 2}},
            "agree in horizon: expected horizon None, as in A, got 2 in B",
        ),
        (
            {"loss": losses(1, id="other")},
            "a loss that both recorded: expected a common loss, such as test, got other",
        ),
        ({"loss": losses(1, ["x", "y"])}, "agree in the units of the loss test"),
    ],
)
def test_incomparable_runs_should_be_refused_with_the_reason(tmp_path, other, text):
    write(tmp_path / "a")
    write(tmp_path / "b", **other)
    with pytest.raises(InputError, match=text):
        compare_runs(tmp_path / "a", tmp_path / "b", paired_on=("horizon",))


def test_side_of_two_studies_or_twice_a_seed_should_be_refused(tmp_path):
    write(tmp_path / "a" / "one")
    write(tmp_path / "a" / "two")
    with pytest.raises(InputError, match="which holds toy with seed 0 twice"):
        compare_runs(tmp_path / "a", tmp_path / "a")
    write(tmp_path / "b" / "one")
    write(tmp_path / "b" / "two", study="else")
    with pytest.raises(InputError, match="which holds else, toy"):
        compare_runs(tmp_path / "b", tmp_path / "b")

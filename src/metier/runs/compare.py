"""Pair two runs unit by unit and say which has the lower loss, or why they cannot be compared."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.comparison import Comparison, compare_paired
from metier.core.errors import InputError
from metier.core.verdict import Verdict, judge
from metier.records.results import Losses, Result
from metier.runs.read import find_runs, read_config, read_result


@dataclass(frozen=True, slots=True, kw_only=True)
class LossComparison:
    """One loss of run A beside the same loss of run B, on the units that both evaluated.

    Attributes:
        id, description: which loss.
        unit: what one evaluation unit is.
        mean_a, mean_b: mean loss over the paired units.
        unpaired: units that only one of the runs has; they are left out.
        comparison: gain = mean(b - a), positive where A has the lower loss.
    """

    id: str
    description: str
    unit: str
    mean_a: float
    mean_b: float
    unpaired: int
    comparison: Comparison

    @property
    def verdict(self) -> Verdict:
        """Whether A's loss is lower ("holds"), higher, the same in every unit, or not decided."""
        return judge(self.comparison, at_least=0.0, level=self.comparison.level)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {
            **asdict(self),
            "comparison": self.comparison.to_dict(),
            "verdict": self.verdict.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Two runs of one study on the same data.

    Attributes:
        study, size: what was run.
        seeds: the seeds that both have.
        differences: configuration key -> (A's value, B's value); what is being compared.
        losses: one comparison per loss that both recorded.
    """

    study: str
    size: str
    seeds: tuple[int, ...]
    differences: Mapping[str, tuple[Any, Any]]
    losses: tuple[LossComparison, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {
            "study": self.study,
            "size": self.size,
            "seeds": list(self.seeds),
            "differences": {key: list(pair) for key, pair in self.differences.items()},
            "losses": [loss.to_dict() for loss in self.losses],
        }


@dataclass(frozen=True, slots=True)
class _Side:
    name: str
    configs: dict[int, dict[str, Any]]
    results: dict[int, Result]

    def first(self) -> Result:
        return self.results[min(self.results)]


def compare_runs(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    paired_on: Sequence[str] = (),
    level: float = 0.95,
) -> RunComparison:
    """Compare two runs, or two folders of runs over seeds, of one study.

    Units are paired by key within a seed. Where every seed saw the same data, the seeds are averaged per
    unit; where each seed drew its own data, seeds are the independent groups.

    Args:
        a: a finished run, or a folder of finished runs with different seeds.
        b: the rival.
        paired_on: configuration keys that fix data and evaluation (the study's `paired_on`).
        level: coverage of the intervals.

    Returns:
        The comparison of every loss that both sides recorded.

    Raises:
        InputError: the runs differ in study, size, data or a `paired_on` key, share no seed, or recorded
            no common loss; the message says which.
    """
    left, right = _side(a), _side(b)
    for field in ("study", "size"):
        _refuse_unless_equal(field, left, right, lambda side, f=field: getattr(side.first(), f))
    seeds = tuple(sorted(left.results.keys() & right.results.keys()))
    if not seeds:
        raise _incomparable("seeds", sorted(left.results), sorted(right.results))
    differences = _differences(left.configs[seeds[0]], right.configs[seeds[0]])
    for key in paired_on:
        if key in differences:
            raise _incomparable(key, *differences[key])
    for seed in seeds:
        _refuse_other_data(left.results[seed], right.results[seed])
    return RunComparison(
        study=left.first().study,
        size=left.first().size,
        seeds=seeds,
        differences=differences,
        losses=tuple(_compare_loss(left, right, seeds, i, level) for i in _common(left, right, seeds)),
    )


def _side(folder: str | os.PathLike[str]) -> _Side:
    configs: dict[int, dict[str, Any]] = {}
    results: dict[int, Result] = {}
    studies = set()
    for path in find_runs(folder):
        config, result = read_config(path), read_result(path)
        studies.add(result.study)
        if result.seed in results or len(studies) > 1:
            twice = f" with seed {result.seed} twice" if len(studies) == 1 else ""
            raise InputError(
                "each side of a comparison is one run, or one study's runs over different seeds",
                expected="one study and one run per seed",
                got=f"{os.fspath(folder)}, which holds {', '.join(sorted(studies))}{twice}",
                next_step="Name the folder of one study's runs.",
            )
        configs[result.seed], results[result.seed] = config["config"], result
    return _Side(os.fspath(folder), configs, results)


def _refuse_unless_equal(what: str, left: _Side, right: _Side, value: Any) -> None:
    if value(left) != value(right):
        raise _incomparable(what, value(left), value(right))


def _incomparable(what: str, a: Any, b: Any) -> InputError:
    return InputError(
        f"two runs are compared only if they agree in {what}",
        expected=f"{what} {a!r}, as in A",
        got=f"{b!r} in B",
        next_step="Compare runs of the same study, size and data that share seeds.",
    )


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key)}


def _refuse_other_data(a: Result, b: Result) -> None:
    first, second = ({data.name: data.sha256 for data in result.data} for result in (a, b))
    for name in sorted({*first, *second}):
        if first.get(name) != second.get(name):
            shown = [(digests.get(name) or "not used")[:12] for digests in (first, second)]
            raise _incomparable(f"the data ({name}, seed {a.seed})", *shown)


def _common(left: _Side, right: _Side, seeds: Sequence[int]) -> list[str]:
    sets = [{loss.id for loss in side.results[seed].losses} for side in (left, right) for seed in seeds]
    common = sorted(set.intersection(*sets))
    if not common:
        raise InputError(
            "two runs are compared on a loss that both recorded",
            expected="a common loss, such as " + (", ".join(sorted(sets[0])) or "none in A"),
            got=", ".join(sorted(sets[len(seeds)])) or "none in B",
            next_step="Compare runs of the same study made by the same release.",
        )
    return common


def _compare_loss(
    left: _Side, right: _Side, seeds: Sequence[int], loss_id: str, level: float
) -> LossComparison:
    pairs = [_pair(_loss(left, seed, loss_id), _loss(right, seed, loss_id)) for seed in seeds]
    first = _loss(left, seeds[0], loss_id)
    same_data = len({tuple(d.sha256 for d in left.results[seed].data) for seed in seeds}) == 1
    same_keys = len({keys for keys, _, _, _ in pairs}) == 1
    if len(seeds) == 1 or (same_data and same_keys and left.results[seeds[0]].data):
        losses_a = np.mean([a for _, a, _, _ in pairs], axis=0)
        losses_b = np.mean([b for _, _, b, _ in pairs], axis=0)
        dependence: Any = _dependence(first, pairs[0][0])
    else:
        losses_a = np.concatenate([a for _, a, _, _ in pairs])
        losses_b = np.concatenate([b for _, _, b, _ in pairs])
        dependence = [str(seed) for seed, pair in zip(seeds, pairs, strict=True) for _ in pair[0]]
    return LossComparison(
        id=loss_id,
        description=first.description,
        unit=first.unit,
        mean_a=float(losses_a.mean()),
        mean_b=float(losses_b.mean()),
        unpaired=sum(alone for _, _, _, alone in pairs),
        comparison=compare_paired(losses_a, losses_b, dependence=dependence, level=level),
    )


def _loss(side: _Side, seed: int, loss_id: str) -> Losses:
    return next(loss for loss in side.results[seed].losses if loss.id == loss_id)


def _pair(a: Losses, b: Losses) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64], int]:
    """Return the keys both have in A's order, both sides' losses there, and how many units are alone."""
    first, second = dict(zip(a.keys, a.values, strict=True)), dict(zip(b.keys, b.values, strict=True))
    keys = tuple(key for key in a.keys if key in second)
    if not keys:
        raise _incomparable(f"the units of the loss {a.id}", a.keys[:2], b.keys[:2])
    alone = len(first) + len(second) - 2 * len(keys)
    return keys, np.array([first[k] for k in keys]), np.array([second[k] for k in keys]), alone


def _dependence(loss: Losses, keys: Sequence[str]) -> Any:
    if loss.groups is None:
        return loss.dependence
    groups = dict(zip(loss.keys, loss.groups, strict=True))
    return [groups[key] for key in keys]

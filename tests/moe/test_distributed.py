"""Real process groups: any number of ranks with uneven tokens equals one rank; DDP and FSDP2 too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import CASES, SHARES

from metier import moe
from metier.core.errors import InputError


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What every rank of groups of 1, 2 and 4 processes found; one launch for all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("ranks.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        world: [
            torch.load(folder / f"world-{world}-rank-{rank}.pt", weights_only=True) for rank in range(world)
        ]
        for world in SHARES
    }


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_ranks_with_uneven_tokens_should_equal_one_rank(found, case: str, world: int) -> None:
    """Gradient, m, q and b within 1e-6; one of four ranks has no token at all."""
    expected = found[1][0][case]
    assert ("b" in expected) == (CASES[case].get("sink") == "both")
    for rank in found[world]:
        assert (rank[case]["gradient"] - expected["gradient"]).norm() <= 1e-6 * expected["gradient"].norm()
        for key in set(expected) - {"gradient"}:
            assert (rank[case][key] - expected[key]).abs().max() <= 1e-6, key
    assert (expected["m"] - 1 / expected["m"].numel()).abs().max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp"])
def test_wrapped_models_should_equal_one_rank(found, wrapper: str, world: int) -> None:
    """DDP and FSDP2 fully_shard average over ranks: loss_scale=world makes up for it."""
    expected = found[1][0]["ddp"]
    for rank in found[world]:
        gradient = rank[wrapper]["gradient"]
        assert (gradient - expected["gradient"]).norm() <= 1e-6 * expected["gradient"].norm()
        assert (rank[wrapper]["m"] - expected["m"]).abs().max() <= 1e-6


@pytest.mark.slow
def test_balancing_should_have_moved_the_gradient(found) -> None:
    """The checks above compare something: the cases differ from each other."""
    gradients = [found[1][0][case]["gradient"] for case in CASES]
    for i, one in enumerate(gradients):
        for other in gradients[:i]:
            assert (one - other).norm() > 1e-3 * one.norm()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_one_step_should_take_one_reduction(found, world: int) -> None:
    # The first step has one more, of four numbers: do all ranks have the same layers?
    assert [rank["reductions"] for rank in found[world]] == [[2, 1, 1]] * world


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_with_other_layers_should_all_be_told(found, world: int) -> None:
    """No rank waits for another one's sums, and none ends in the backend's error."""
    for rank, facts in enumerate(found[world]):
        texts = facts["errors"]
        mine, layers = (2 if rank == 0 else 1), "the ranks' balancers have the same layers"
        assert f"{layers}: expected the same layers in the same order on every rank" in texts["layers"]
        assert f"got {mine} on this rank, 1 to 2 on the ranks" in texts["layers"]
        assert f"got {0 if rank == 0 else 1} on this rank, 0 to 1" in texts["no layers on rank 0"]
        for case, count in (("names", 2), ("rules", 1)):
            assert f"got {count} on every rank, with other names" in texts[case]
        assert layers in texts["layers added later"]


@pytest.mark.slow
def test_wrong_ranks_should_be_refused(found) -> None:
    for rank, facts in enumerate(found[2]):
        texts = facts["errors"]
        assert "the ranks' balancers are alike" in texts["settings"]
        assert "every balanced router is called between two steps" in texts["silent"]
        # A rank without tokens is no error, and NaN on one rank is one on all.
        assert "one rank silent" not in texts
        assert "router logits are finite" in texts["nan on rank 0"]
        assert "no reduction" not in texts
        assert ("a group that it belongs to" in texts.get("group", "")) == (rank == 1)


def test_group_without_process_group_should_be_refused() -> None:
    balancer = moe.balancer("phi")
    balancer.add_layer("gate", n_experts=4, top_k=1)
    balancer.observe("gate", torch.zeros(2, 4), indices=torch.zeros(2, 1).long())
    with pytest.raises(InputError, match=r"a group needs torch.distributed"):
        balancer.step(object())
    balancer.step(False)
    assert balancer.steps == 1

"""How many files a call visits: few, so that a reader who follows it need not open many."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

import metier
from metier import moe

SRC = Path(metier.__file__).parent


def files_visited(call: Callable[[], Any]) -> list[str]:
    """Return the files of metier whose functions run during a call, in the order of their first call."""
    visited: dict[str, None] = {}

    def note(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(SRC):
            visited[path.relative_to(SRC).as_posix()] = None

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return list(visited)


def sparse_model(**settings: Any) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), moe.SparseMoE(8, 16, n_experts=4, top_k=2, **settings))


def train(model: nn.Module) -> None:
    model(torch.ones(64, 8)).square().mean().backward()


@pytest.mark.parametrize(
    ("name", "most_attaching", "most_passing", "most_stepping"),
    [("phi", 8, 8, 11), ("phi_bias", 8, 8, 12), ("quantile", 8, 9, 12)],
)
def test_balancing_should_visit_few_files(
    name: str, most_attaching: int, most_passing: int, most_stepping: int
) -> None:
    attach, model, balancer, handles = moe.attach, sparse_model(), moe.balancer(name), []
    attaching = files_visited(lambda: handles.append(attach(model, balancer)))
    passing = files_visited(lambda: train(model))
    stepping = files_visited(handles[0].step)
    assert {"moe/attachment/handle.py", "moe/balancing/balancer.py"} <= set(attaching) & set(stepping)
    assert {"moe/attachment/hooks.py", "moe/sparse/layer.py", "moe/balancing/balancer.py"} <= set(passing)
    assert len(attaching) <= most_attaching, attaching
    assert len(passing) <= most_passing, passing
    assert len(stepping) <= most_stepping, stepping


def test_a_layer_with_a_balancer_of_its_own_should_visit_fewer() -> None:
    model = sparse_model(balancer=moe.balancer("phi"))
    passing = files_visited(lambda: train(model))
    assert "moe/balancing/balancer.py" in passing
    assert len(passing) <= 6, passing

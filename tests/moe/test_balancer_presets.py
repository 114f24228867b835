"""Balancers by name: what each stands for, and what is refused."""

from __future__ import annotations

import pytest
import torch

from metier import moe
from metier.core.errors import InputError
from metier.moe.balancing.bias_rules import BIAS_RULES

SHAPES = {
    "phi": ("Shannon()", 0.01, "soft", "aux", "lagged", "weight_new=0.05"),
    "phi_paper": ("Shannon()", 0.01, "soft", "aux", "paper", "weight_new=0.65"),
    "phi_bias": ("Shannon()", 0.3, "hard", "bias", "lagged", "weight_new=0.02"),
    "switch": ("Quadratic()", 0.01, "hard", "aux", "paper", "weight_new=1"),
    "global_switch": ("Quadratic()", 0.01, "hard", "aux", "lagged", "weight_new=1"),
    "loss_free": ("Quadratic()", 1e-3, "hard", "bias", "lagged", "weight_new=1"),
    "quantile": ("Quadratic()", 1.0, "hard", "bias", "lagged", "weight_new=1"),
}


def test_every_preset_should_be_described() -> None:
    assert set(SHAPES) == set(moe.PRESETS)


@pytest.mark.parametrize("name", SHAPES)
def test_preset_should_have_its_published_shape(name: str) -> None:
    b = moe.balancer(name)
    strength = b.bias_strength if b.sink == "bias" else b.strength
    got = (b.potential.identity(), strength, b.track, b.sink, b.price_mode, b.memory.describe())
    assert got == SHAPES[name]


def test_strength_should_go_where_it_acts() -> None:
    assert moe.balancer("phi", strength=0.5).strength == 0.5
    for name in ("phi_bias", "loss_free", "quantile"):
        assert moe.balancer(name, strength=0.125).bias_strength == 0.125


def test_phi_names_should_take_memory_potential_and_target() -> None:
    b = moe.balancer("phi", half_life_tokens=2e6, potential="log_cosh", target=[0.75, 0.25])
    assert b.memory.describe() == "half_life_tokens=2000000"
    assert b.potential.identity() == "LogCosh(sharpness=1, target=0.75,0.25)"
    assert moe.balancer("phi_bias", running=True).memory.describe() == "running"
    assert moe.balancer("phi_paper", weight_new=0.35).memory.weight_new == 0.35


def test_loss_free_should_have_two_rules() -> None:
    assert moe.balancer("loss_free").bias_rule == "sign"
    proportional = moe.balancer("loss_free", rule="proportional")
    assert (proportional.bias_rule, proportional.bias_strength) == ("proportional", 0.01)


def test_every_bias_rule_should_be_reached_by_a_preset() -> None:
    reached = {rule for preset in moe.PRESETS.values() for rule in preset.rules}
    assert reached == set(BIAS_RULES)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "swich"}, "Did you mean 'switch'"),
        ({"name": "switch", "half_life_tokens": 10.0}, "'switch' has no memory to choose"),
        ({"name": "quantile", "potential": "tsallis"}, "'quantile' has no potential to choose"),
        ({"name": "phi", "rule": "sign"}, "'phi' has no rule to choose"),
        ({"name": "loss_free", "rule": "quantile"}, "rule is one of"),
        ({"name": "phi", "strength": -1.0}, "strength has no negative values"),
        ({"name": "phi", "half_life_tokens": 5.0, "weight_new": 0.1}, "one memory"),
        ({"name": "phi", "half_life_tokens": 0.0}, "half_life_tokens is a number of tokens"),
        ({"name": "phi", "weight_new": 1.5}, "0 < weight_new <= 1"),
    ],
)
def test_meaningless_settings_should_be_refused(arguments: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        moe.balancer(**arguments)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"bias_rule": "sign"}, "a bias rule needs a bias to move"),
        ({"track": "both"}, "track is one of"),
        ({"sink": "loss"}, "sink is one of"),
        ({"price": "now"}, "price is one of"),
        ({"sink": "bias", "bias_rule": "median"}, "bias_rule is one of"),
        ({"z_loss": -1.0}, "z_loss has no negative"),
        ({"tokens_per_step": 0}, "tokens_per_step"),
    ],
)
def test_balancer_should_refuse_contradictions(settings: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        moe.Balancer(**settings)


def test_layers_should_be_registered_well() -> None:
    b = moe.balancer("phi")
    assert [b.add_layer(n_experts=4, top_k=1), b.add_layer(n_experts=8, top_k=8)] == ["layer_0", "layer_1"]
    assert b.layers == ("layer_0", "layer_1")
    with pytest.raises(InputError, match="'layer_0' a second time"):
        b.add_layer("layer_0", n_experts=4, top_k=1)
    with pytest.raises(InputError, match="at most n_experts=4"):
        b.add_layer("wide", n_experts=4, top_k=5)
    with pytest.raises(InputError, match="n_experts is a whole number"):
        b.add_layer("one", n_experts=1, top_k=1)
    with pytest.raises(InputError, match="fewer than n_experts=4"):
        moe.balancer("quantile").add_layer("all", n_experts=4, top_k=4)
    with pytest.raises(InputError, match=r"a balancer knows its layers.*add_layer\('gate'"):
        b.observe("gate", torch.zeros(2, 4), indices=torch.zeros(2, 1, dtype=torch.long))
    with pytest.raises(InputError, match="a balancer has layers to balance"):
        moe.balancer("phi").step()


def test_repr_should_say_what_it_is() -> None:
    b = moe.balancer("loss_free")
    assert repr(b) == (
        "Balancer(Quadratic(), strength=0.01, weight_new=1, track=hard, sink=bias, price=lagged, "
        "bias_rule=sign, bias_strength=0.001; 0 layers, 0 steps)"
    )

"""One contract for every router family: read from the installed transformers, class by class."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.version import Version
from tiny_moe_models import torch, transformers

from metier.core.errors import InputError
from metier.core.extras import versions_tested
from metier.moe.attachment.discovery import unregistered_routers
from metier.moe.attachment.routers import FAMILIES, RouterFamily, router_families

N, D, E, K = 40, 16, 8, 2
OURS = {"TopKRouter"}
ROUTERS = sorted(set(router_families()) - OURS)
SETTINGS = SimpleNamespace(
    num_experts=E,
    num_local_experts=E,
    n_routed_experts=E,
    moe_num_experts=E,
    num_experts_per_tok=K,
    moe_topk=K,
    moe_k=K,
    hidden_size=D,
    intermediate_size=24,
    n_group=2,
    topk_group=1,
    norm_topk_prob=True,
    routed_scaling_factor=1.5,
    route_scale=1.5,
    router_scaling_factor=1.5,
    topk_method="group_limited_greedy",
    moe_router_logit_softcapping=0.0,
    router_jitter_noise=0.0,
    moe_norm_min=1e-12,
    use_expert_bias=True,
    use_bias=False,
    num_shared_experts=0,
    scoring_func="sigmoid",
    router_bias=False,
    moe_router_use_sigmoid=True,
)


def sources():
    """Return class name -> (module name, class tree) of every class that is called a router or a gate."""
    found = {}
    for path in sorted(Path(transformers.models.__path__[0]).glob("*/modeling_*.py")):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(
            r"^class (\w*(?:Router|Gate)\w*)\(.*?(?=^\S)", text, re.MULTILINE | re.DOTALL
        ):
            module = f"transformers.models.{path.parent.name}.{path.stem}"
            found[match[1]] = (module, ast.parse(match[0]).body[0])
    return found


@pytest.fixture(scope="module")
def classes():
    return sources()


def make_router(classes, name):
    """Build a router of the installed transformers with random weights, or skip what it has not."""
    if name not in classes:
        pytest.skip(f"the installed transformers has no {name}")
    module = importlib.import_module(classes[name][0])
    torch.manual_seed(5)
    cls = getattr(module, name)
    router = cls(SETTINGS, 0) if "layer_idx" in inspect.signature(cls.__init__).parameters else cls(SETTINGS)
    with torch.no_grad():
        for tensor in (*router.parameters(), *router.buffers()):
            tensor.copy_(torch.randn(tensor.shape) * 0.5)
    return router


def extra_arguments(router, bias):
    names = list(inspect.signature(router.forward).parameters)
    return () if len(names) == 1 else (bias,)


def hidden(router):
    needs_batch = type(router).__name__.startswith("Afmoe")
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(1))
    return x[None] if needs_batch else x


@pytest.mark.parametrize("name", ROUTERS)
def test_a_family_should_read_its_routers(classes, name):
    router, family = make_router(classes, name), router_families()[name]
    output = router(hidden(router), *extra_arguments(router, torch.zeros(E)))
    logits, scores, indices = family.read(output)
    assert logits.shape == (N, E)
    assert scores.shape == indices.shape == (N, K)
    assert getattr(router, family.n_experts) == E
    assert getattr(router, family.top_k) == K
    assert indices.dtype == torch.int64
    assert torch.all((indices >= 0) & (indices < E))
    again = family.write(output, scores * 2, indices)
    assert torch.equal(family.read(again)[1], scores * 2)
    assert len(again) == len(output)


@pytest.mark.parametrize("name", [n for n in ROUTERS if router_families()[n].select is not None])
@pytest.mark.parametrize("renormalize", [True, False])
def test_selecting_with_no_bias_should_give_what_the_router_gives(classes, name, renormalize):
    router, family = make_router(classes, name), router_families()[name]
    if hasattr(router, "norm_topk_prob"):
        router.norm_topk_prob = renormalize
    elif not renormalize:
        pytest.skip("no such switch")
    logits, scores, indices = family.read(router(hidden(router)))
    ours, chosen = family.select(router, logits, torch.zeros(E))
    torch.testing.assert_close(
        torch.zeros(N, E).scatter(1, chosen, ours.float()),
        torch.zeros(N, E).scatter(1, indices, scores.float()),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("name", [n for n in ROUTERS if router_families()[n].select is not None])
def test_gates_of_unchanged_choices_should_not_feel_the_bias(classes, name):
    """What must be true, 18: where a token's choice is as before, so are its gate values, to 1e-6."""
    router, family = make_router(classes, name), router_families()[name]
    logits, _, _ = family.read(router(hidden(router)))
    bias = torch.linspace(-0.1, 0.1, E)
    before, chosen = family.select(router, logits, torch.zeros(E))
    after, moved = family.select(router, logits, bias)
    dense_before = torch.zeros(N, E).scatter(1, chosen, before)
    dense_after = torch.zeros(N, E).scatter(1, moved, after)
    same = (chosen.sort(-1).values == moved.sort(-1).values).all(-1)
    assert 0 < int(same.sum()) < N, "the bias must move some choices and leave others"
    torch.testing.assert_close(dense_after[same], dense_before[same], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in ROUTERS if router_families()[n].bias_buffer is not None])
def test_a_bias_buffer_should_move_choices_and_no_gate_of_a_kept_choice(classes, name):
    """What must be true, 18, for routers that carry a correction bias of their own."""
    router, family = make_router(classes, name), router_families()[name]
    own = family.bias_buffer if extra_arguments(router, 0) == () else None
    calls = []
    for bias in (torch.zeros(E), torch.linspace(-0.5, 0.5, E)):
        if own is not None:
            target = router
            for part in own.split("."):
                target = getattr(target, part)
            with torch.no_grad():
                target.copy_(bias.view_as(target))
        _, scores, indices = family.read(router(hidden(router), *extra_arguments(router, bias)))
        calls.append((torch.zeros(N, E).scatter(1, indices, scores.float()), indices.sort(-1).values))
    same = (calls[0][1] == calls[1][1]).all(-1)
    assert 0 < int(same.sum()) < N
    torch.testing.assert_close(calls[0][0][same], calls[1][0][same], rtol=0, atol=1e-6)


CLAIMED = (
    "MixtralTopKRouter",
    "Qwen3MoeTopKRouter",
    "OlmoeTopKRouter",
    "DeepseekV3TopkRouter",
    "GptOssTopKRouter",
)


def test_the_claimed_routers_should_be_registered_and_there(classes):
    assert set(CLAIMED) <= set(ROUTERS)
    assert set(CLAIMED) <= set(classes)


TWIN = """
class {name}(nn.Module):
    def forward(self, hidden_states: {kind}):
        return self.{method}(hidden_states)

"""


def test_a_router_that_works_like_a_registered_one_should_be_found(tmp_path):
    texts = {
        "known": TWIN.format(name="MixtralTopKRouter", kind="Tensor", method="route"),
        "twin": TWIN.format(name="BrandNewTopKRouter", kind="torch.Tensor", method="route"),
        "other": TWIN.format(name="StrangeRouter", kind="Tensor", method="guess"),
        "long": TWIN.format(name="LongRouter", kind="Tensor", method="route").replace(
            "nn.Module", "\n    A,\n    B,\n"
        ),
        "broken": "class HalfRouter(nn.Module):\n    def forward(self\n",
    }
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"modeling_{name}.py").write_text(text + "end = True\n")
    assert unregistered_routers(tmp_path) == ("BrandNewTopKRouter", "LongRouter")


@pytest.mark.skipif(
    Version(transformers.__version__) > Version(versions_tested()["transformers"]),
    reason="what a newer transformers brings is reported by `metier doctor` and `make newest`",
)
def test_the_transformers_tested_with_should_have_no_unregistered_twin():
    assert unregistered_routers() == ()


def test_every_family_should_know_one_router_at_least(classes):
    assert all(
        set(family.routers) & set(classes)
        for family in FAMILIES.values()
        if family.routers != ("TopKRouter",)
    )


def test_families_of_ones_own_should_come_first():
    mine = RouterFamily(name="mine", routers=("MixtralTopKRouter",), gating="sigmoid")
    assert router_families([mine])["MixtralTopKRouter"] is mine
    assert router_families()["MixtralTopKRouter"].gating == "softmax"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gating": "tanh", "routers": ("A",)}, "gating is one of a fixed list"),
        ({"gating": "softmax", "routers": "A"}, "names its router classes: expected a tuple .* got 'A'"),
        ({"gating": "softmax", "routers": ()}, "names its router classes"),
    ],
)
def test_a_senseless_family_should_be_refused(settings, message):
    with pytest.raises(InputError, match=message):
        RouterFamily(name="x", **settings)

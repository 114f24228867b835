"""The router against the routers of transformers, its bias, its groups, and its corners."""

from __future__ import annotations

import pytest
import torch

from metier.core.errors import InputError
from metier.moe.sparse.layer import TopKRouter


def copied(theirs, **options):
    """A TopKRouter with the weights of a router of transformers."""
    router = TopKRouter(theirs.hidden_dim, theirs.num_experts, top_k=theirs.top_k, **options)
    with torch.no_grad():
        theirs.weight.normal_(generator=torch.Generator().manual_seed(1))
        router.weight.copy_(theirs.weight)
    return router


def by_expert(routing, n_experts):
    """Gate values as a dense (N, E) table: the order of the choices is free."""
    _, scores, indices = routing
    return torch.zeros(scores.shape[0], n_experts).scatter(1, indices, scores.float())


def mixtral():
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter

    return MixtralTopKRouter(MixtralConfig(hidden_size=32, num_local_experts=8, num_experts_per_tok=2))


def gpt_oss():
    from transformers import GptOssConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssTopKRouter

    return GptOssTopKRouter(GptOssConfig(hidden_size=32, num_local_experts=8, num_experts_per_tok=2))


def qwen3():
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

    return Qwen3MoeTopKRouter(
        Qwen3MoeConfig(hidden_size=32, num_experts=8, num_experts_per_tok=2, norm_topk_prob=False)
    )


def deepseek():
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

    return DeepseekV3TopkRouter(
        DeepseekV3Config(
            hidden_size=32,
            n_routed_experts=8,
            num_local_experts=8,
            num_experts_per_tok=2,
            n_group=4,
            topk_group=2,
            routed_scaling_factor=2.5,
        )
    )


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (mixtral, {}),
        (qwen3, {"normalize": False}),
        (gpt_oss, {"routing": "topk_softmax"}),
        (deepseek, {"routing": "sigmoid", "n_groups": 4, "top_groups": 2, "scaling": 2.5}),
    ],
)
def test_router_should_route_as_transformers_does(make, options):
    """6: the released routers as an oracle, values and gradients."""
    theirs = make()
    ours = copied(theirs, **options)
    bias = torch.linspace(-0.2, 0.2, 8)
    if options.get("routing") == "sigmoid":
        theirs.e_score_correction_bias.copy_(bias)
        ours.selection_bias.copy_(bias)
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(2))
    a, b = theirs(x), ours(x)
    torch.testing.assert_close(a[0].float(), b.logits)
    assert torch.equal(a[2].sort(-1).values, b.indices.sort(-1).values)
    tables = by_expert(a, 8), by_expert(b, 8)
    torch.testing.assert_close(*tables, atol=1e-6, rtol=1e-5)
    probe = torch.randn(64, 8)
    grads = [
        torch.autograd.grad((t * probe).sum(), r.weight)[0]
        for t, r in zip(tables, (theirs, ours), strict=True)
    ]
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("routing", ["softmax", "topk_softmax", "sigmoid"])
def test_gates_of_unchanged_choices_should_not_see_the_bias(routing):
    """18: gates of unchanged choices unchanged by bias, 1e-6; and the bias does change choices."""
    router = TopKRouter(16, 8, top_k=2, routing=routing)
    x = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    plain = router(x)
    biased = router(x, torch.linspace(-0.1, 0.1, 8))
    same = (plain.indices.sort(-1).values == biased.indices.sort(-1).values).all(-1)
    assert 0 < same.sum() < 200
    torch.testing.assert_close(by_expert(plain, 8)[same], by_expert(biased, 8)[same], atol=1e-6, rtol=0)
    router.selection_bias.copy_(torch.linspace(-0.1, 0.1, 8))
    assert torch.equal(router(x).indices, biased.indices)


def test_a_large_bias_should_decide_the_choice_alone():
    router = TopKRouter(16, 8, top_k=2)
    bias = torch.zeros(8)
    bias[[3, 5]] = 10.0
    chosen = router(torch.randn(50, 16), bias).indices.sort(-1).values
    assert (chosen == torch.tensor([3, 5])).all()


def test_sigmoid_logits_near_minus_50_should_sum_to_one():
    """23: sigmoid logits all near -50: gate values sum to 1, 1e-6."""
    router = TopKRouter(4, 8, top_k=3, routing="sigmoid")
    logits = -50.0 + torch.randn(20, 8)
    scores, _ = router.select(logits)
    assert (scores.sum(-1) - 1).abs().max() < 1e-6


def test_groups_should_confine_the_choices():
    router = TopKRouter(16, 12, top_k=3, routing="sigmoid", n_groups=4, top_groups=1)
    groups = router(torch.randn(100, 16)).indices // 3
    assert (groups == groups[:, :1]).all()
    assert groups.unique().numel() > 1


def test_a_token_without_finite_logits_should_disturb_no_other():
    """10: non-finite logits: ids stay in range, and only that token's gate values are lost."""
    router = TopKRouter(4, 8, top_k=2)
    x = torch.randn(6, 4)
    clean = router(x)
    x[2, 0] = torch.nan
    hurt = router(x)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(hurt.indices[others], clean.indices[others])
    assert torch.equal(hurt.scores[others], clean.scores[others])
    assert hurt.scores[2].isnan().all()
    assert hurt.indices.max() < 8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_logits_should_be_computed_in_float32_at_least(dtype):
    router = TopKRouter(8, 4, top_k=2, dtype=dtype)
    logits = router(torch.randn(3, 8, dtype=dtype)).logits
    assert logits.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 9}, "top_k is at most n_experts: expected 1 to 8, got top_k=9"),
        ({"top_k": 2, "n_groups": 3}, "n_groups that divide 8"),
        ({"top_k": 3, "n_groups": 4, "top_groups": 1}, "top_k within 1 of them"),
        ({"top_k": 2, "n_groups": 2, "top_groups": 3}, "top_groups is at most n_groups"),
        ({"top_k": 2, "routing": "sinkhorn"}, "routing is one of a fixed list"),
        ({"top_k": 0}, "top_k is a whole number"),
    ],
)
def test_counts_that_do_not_fit_should_be_refused(options, message):
    with pytest.raises(InputError, match=message):
        TopKRouter(4, 8, **options)

"""Tiny random transformers models of every claimed family, and the explicit loss that hooks must match."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "attention_dropout": 0.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def mixtral(**more):
    config = transformers.MixtralConfig(
        **{**COMMON, "num_local_experts": 4, "num_experts_per_tok": 2, **more}
    )
    return transformers.MixtralForCausalLM(config)


def qwen3_moe(**more):
    settings = {
        **COMMON,
        "moe_intermediate_size": 48,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "head_dim": 8,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        **more,
    }
    return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**settings))


def olmoe(**more):
    settings = {**COMMON, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": False, **more}
    return transformers.OlmoeForCausalLM(transformers.OlmoeConfig(**settings))


def deepseek_v3(**more):
    settings = {
        **COMMON,
        "num_key_value_heads": 4,
        "moe_intermediate_size": 48,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 0,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        **more,
    }
    return transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**settings))


def gpt_oss(**more):
    settings = {
        **COMMON,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "head_dim": 8,
        "sliding_window": 8,
        **more,
    }
    return transformers.GptOssForCausalLM(transformers.GptOssConfig(**settings))


BUILDERS = {
    "mixtral": mixtral,
    "qwen3_moe": qwen3_moe,
    "olmoe": olmoe,
    "deepseek_v3": deepseek_v3,
    "gpt_oss": gpt_oss,
}
SIGMOID = {"deepseek_v3"}


def build(name, *, seed=0, **more):
    """Return a tiny model in training mode whose routers differ and do not tie."""
    torch.manual_seed(seed)
    model = BUILDERS[name](**more)
    with torch.no_grad():
        for _, router in routers_of(model):
            router.weight.copy_(torch.randn_like(router.weight) * 0.3)
    return model.train()


def routers_of(model):
    """Yield (name, module) of the routers, found by their class name alone."""
    for name, module in model.named_modules():
        if type(module).__name__.lower().endswith("topkrouter"):
            yield name, module


def tokens(batch=2, length=10, seed=3, vocab=64):
    return torch.randint(3, vocab, (batch, length), generator=torch.Generator().manual_seed(seed))


def probabilities(logits, *, sigmoid):
    """Scores normalized over all experts, written out: softmax, or sigmoid over its sum."""
    if sigmoid:
        scores = torch.sigmoid(logits.double())
        return scores / scores.sum(-1, keepdim=True)
    return torch.softmax(logits.double(), -1)


def capture_logits(model):
    """Return a dict that fills with each router's logits (with their graph) and the hooks to remove."""
    found = {}

    def keep(name):
        def hook(module, args, output):
            found.setdefault(name, []).append(output)

        return hook

    return found, [router.register_forward_hook(keep(name)) for name, router in routers_of(model)]


def expected_gradients(model, inputs, balancer, *, task_weight=1.0, sigmoid=False, mask=None):
    """Gradients of task_weight x task loss + strength x sum over routers of <price, mean gates>."""
    found, hooks = capture_logits(model)
    model.zero_grad()
    loss = task_weight * model(**inputs).loss
    for name, outputs in found.items():
        for output in outputs:
            p = probabilities(output[0], sigmoid=sigmoid)
            p = p if mask is None else p[mask.reshape(-1).bool()]
            loss = loss + balancer.strength * (balancer.prices(name).double() * p.mean(0)).sum()
    loss.backward()
    for hook in hooks:
        hook.remove()
    result = gradients(model)
    model.zero_grad()
    return result


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def warmed(model, balancer, *, attach, steps=1):
    """Attach, and run steps that leave prices that are not zero."""
    handle = attach(model, balancer)
    for i in range(steps):
        model(input_ids=tokens(seed=50 + i)).logits.sum().backward()
        handle.step()
    model.zero_grad()
    return handle


def gradients(model):
    return {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}

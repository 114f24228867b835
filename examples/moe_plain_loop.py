"""Balance a transformers MoE model in a training loop of your own, with gradient accumulation.

python examples/moe_plain_loop.py
"""

from __future__ import annotations

import torch
import transformers

from metier import moe

torch.manual_seed(0)
config = transformers.MixtralConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_local_experts=8,
    num_experts_per_tok=2,
    bos_token_id=1,
    eos_token_id=2,
)
model = transformers.MixtralForCausalLM(config)
with torch.no_grad():  # start from routers that favor two experts, as badly trained ones do
    for layer in model.model.layers:
        layer.mlp.gate.weight.normal_(std=0.3)
        layer.mlp.gate.weight[:2] += 0.6 * model.model.embed_tokens.weight.mean(0).sign()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

batch, length, accumulate = 8, 16, 4
tokens_per_step = batch * length * accumulate


def draw() -> torch.Tensor:
    """Sequences of six domains, each with ten words of its own."""
    domain = torch.randint(0, 6, (batch, 1))
    return 4 + 10 * domain + torch.randint(0, 10, (batch, length))


evaluation = [{"input_ids": draw()} for _ in range(4)]
before = moe.audit(model, evaluation)

balancer = moe.balancer("phi", strength=0.05, half_life_tokens=10 * tokens_per_step)
with moe.attach(model, balancer, tokens_per_step=tokens_per_step) as handle:
    for _ in range(60):
        for _ in range(accumulate):
            ids = draw()
            loss = model(input_ids=ids, labels=ids).loss
            (loss / accumulate).backward()  # the balancing gradient comes along, not divided
        handle.step()  # before or after the optimizer's step, once each
        optimizer.step()
        optimizer.zero_grad()
    figures = handle.metrics()

after = moe.audit(model, evaluation)
print(f"MaxVio of the worst router: {before.worst.max_vio:.2f} before, {after.worst.max_vio:.2f} after")
print(f"last step: MaxVio {figures['max_vio/mean']:.2f}, dead experts {figures['dead/mean']:.0f}")

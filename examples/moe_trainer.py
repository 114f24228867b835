"""Balance a model that the Trainer of transformers trains, stop, and resume from a checkpoint.

python examples/moe_trainer.py
"""

from __future__ import annotations

import tempfile

import torch
import transformers

from metier import moe

config = transformers.GptOssConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    num_local_experts=4,
    num_experts_per_tok=2,
    max_position_embeddings=64,
    rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    pad_token_id=0,
    eos_token_id=2,
)
rows = torch.randint(3, 64, (64, 16), generator=torch.Generator().manual_seed(0))
data = [{"input_ids": row, "labels": row} for row in rows]
folder = tempfile.mkdtemp()


def train(steps: int, resume: bool) -> moe.BalancingCallback:
    torch.manual_seed(0)
    callback = moe.BalancingCallback(moe.balancer("phi", half_life_tokens=1024))
    arguments = transformers.TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        logging_steps=2,
        save_steps=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    model = transformers.GptOssForCausalLM(config)
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data, callbacks=[callback])
    trainer.train(resume_from_checkpoint=resume)
    return callback


first = train(4, resume=False)
print("steps of the first run:", first.balancer.steps)
second = train(6, resume=True)
print("steps after resuming:", second.balancer.steps)

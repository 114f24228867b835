"""The Trainer of transformers: accumulation, logging, checkpoints, resuming, and what is refused."""

from __future__ import annotations

import pytest
from tiny_moe_models import build, tokens, torch, transformers

from metier import moe
from metier.core.errors import InputError
from metier.moe.attachment.callback import load_state
from metier.moe.balancing.balancer import Balancer

pytest.importorskip("accelerate")

pytestmark = [pytest.mark.filterwarnings("ignore")]


class Rows(torch.utils.data.Dataset):
    def __init__(self, n=32):
        self.ids = tokens(batch=n, seed=11)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "labels": self.ids[i], "attention_mask": torch.ones(10).long()}


def trainer_for(folder, callback, model=None, rows=32, **more):
    settings = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "max_steps": 4,
        "logging_steps": 1,
        "save_steps": 2,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 5,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        **more,
    }
    args = transformers.TrainingArguments(output_dir=str(folder), **settings)
    return transformers.Trainer(
        model=model or build("mixtral"), args=args, train_dataset=Rows(rows), callbacks=[callback]
    )


def callback(**more):
    return moe.BalancingCallback(Balancer("shannon", 0.05, half_life_tokens=200), **more)


def test_it_should_be_a_trainer_callback():
    assert isinstance(callback(), transformers.TrainerCallback)
    assert isinstance(callback(), moe.BalancingCallback)


def test_training_should_step_once_per_optimizer_step_and_log_its_figures(tmp_path):
    ours = callback()
    trainer = trainer_for(tmp_path, ours)
    trainer.train()
    assert ours.balancer.steps == 4
    assert ours.balancer.loss_scale == 0.25
    # 4 steps of 4 micro-batches of 2 sequences of 10 tokens
    assert ours.handle.state_dict()["balancer"]["tokens"] == [320, 320]
    logged = [entry for entry in trainer.state.log_history if "balancing/max_vio/worst" in entry]
    assert len(logged) == 4
    assert all(entry["balancing/steps"] == i + 1 for i, entry in enumerate(logged))
    routers = [m for m in trainer.model.modules() if type(m).__name__ == "MixtralTopKRouter"]
    assert len(routers) == 2
    assert not any(type(h).__name__ == "RouterHook" for m in routers for h in m._forward_hooks.values())


def test_resuming_should_end_where_an_uninterrupted_run_ends(tmp_path):
    """Loads, prices and weights are bit-equal."""
    whole = callback()
    one = trainer_for(tmp_path / "whole", whole, model=build("gpt_oss"))
    one.train()
    saved = load_state(tmp_path / "whole" / "checkpoint-2" / "balancer.safetensors")
    assert saved["balancer"]["steps"] == 2
    again = callback()
    two = trainer_for(tmp_path / "whole", again, model=build("gpt_oss", seed=1))
    two.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert again.balancer.steps == 4
    a, b = whole.handle.state_dict()["balancer"], again.handle.state_dict()["balancer"]
    for part in ("ema", "price"):
        for name in a[part]:
            assert torch.equal(a[part][name], b[part][name]), (part, name)
    weights = zip(one.model.state_dict().items(), two.model.state_dict().values(), strict=True)
    assert [name for (name, x), y in weights if not torch.equal(x, y)] == []


def test_resuming_without_the_balancers_file_should_be_refused(tmp_path):
    trainer_for(tmp_path, callback(), max_steps=2).train()
    (tmp_path / "checkpoint-2" / "balancer.safetensors").unlink()
    again = trainer_for(tmp_path, callback())
    with pytest.raises(
        InputError, match=r"resumes with the balancer's state: expected balancer\.safetensors"
    ):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_tokens_per_step_should_reach_the_balancer(tmp_path):
    ours = callback(tokens_per_step=80)
    trainer_for(tmp_path, ours, save_strategy="no", max_steps=1).train()
    assert (ours.balancer.tokens_per_step, ours.balancer.loss_scale) == (80, 1.0)


class Scales(transformers.TrainerCallback):
    """Write down the balancer's scale at every micro-batch's optimizer step, and how many there were."""

    def __init__(self, balancer):
        self.balancer, self.seen, self.calls = balancer, [], 1

    def on_substep_end(self, args, state, control, **kwargs):
        self.calls += 1

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.seen.append((self.calls, self.balancer.loss_scale))
        self.calls = 1


def test_the_last_short_accumulation_of_an_epoch_should_be_scaled_by_its_own_length(tmp_path):
    """8 rows in batches of 2 make 4 micro-batches an epoch: with 3 a step, 3 and 1, resumed or not."""
    settings = {"gradient_accumulation_steps": 3, "max_steps": 5, "save_steps": 3}

    def scales(**resume):
        ours = callback()
        trainer = trainer_for(tmp_path, ours, model=build("gpt_oss"), rows=8, **settings)
        watch = Scales(ours.balancer)
        trainer.add_callback(watch)
        trainer.train(**resume)
        return watch.seen

    steps = [(n, 1 / n) for n in (3, 1, 3, 1, 3)]
    assert scales() == steps
    assert scales(resume_from_checkpoint=str(tmp_path / "checkpoint-3")) == steps[3:]


def test_a_loader_without_a_length_should_be_taken_to_have_all(tmp_path):
    from metier.moe.attachment.callback import _steps_per_epoch

    ours = callback()
    args = trainer_for(tmp_path, ours).args
    assert _steps_per_epoch(args, iter([])) is None
    assert _steps_per_epoch(args, range(9)) == 3


def test_a_moving_loss_scale_should_be_refused(tmp_path):
    ours = callback()
    trainer = trainer_for(tmp_path, ours)
    trainer.args.fp16 = True
    with pytest.raises(InputError, match=r"constant loss scale: expected bf16 or fp32, got fp16=True"):
        ours.on_train_begin(trainer.args, trainer.state, trainer.control, model=trainer.model)


def test_a_built_in_loss_should_be_refused_in_training(tmp_path):
    trainer = trainer_for(tmp_path, callback(), model=build("mixtral", output_router_logits=True))
    with pytest.raises(InputError, match=r"MixtralForCausalLM adds its own: router_aux_loss_coef=0\.001"):
        trainer.train()


def test_a_loss_of_the_trainers_own_should_be_refused(tmp_path):
    """TRL's configurations have router_aux_loss_coef, which is not 0 unless it is set."""
    trainer = trainer_for(tmp_path, callback(), save_strategy="no", max_steps=1)
    trainer.args.router_aux_loss_coef = 0.001
    with pytest.raises(
        InputError, match=r"TrainingArguments\.router_aux_loss_coef=0\.001, which the trainer"
    ):
        trainer.train()
    trainer.args.router_aux_loss_coef = 0.0
    assert trainer.train().global_step == 1


def test_a_bias_should_stay_in_force_after_training(tmp_path):
    balancer = Balancer(sink="bias", bias_rule="sign", bias_strength=0.05)
    trainer = trainer_for(tmp_path, moe.BalancingCallback(balancer), model=build("deepseek_v3"), max_steps=2)
    trainer.train()
    gate = trainer.model.model.layers[0].mlp.gate
    assert float(gate.e_score_correction_bias.abs().max()) > 0.04
    torch.testing.assert_close(gate.e_score_correction_bias, balancer.bias("model.layers.0.mlp.gate"))

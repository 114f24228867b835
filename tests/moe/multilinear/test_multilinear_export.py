"""Compiled, exported and distributed layers."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
import torch.distributed as dist

from metier import moe

FORMS = ["cp", *(pytest.param(form, marks=pytest.mark.slow) for form in moe.FORMS if form != "cp")]


def build(form, norm="layer", modes=(12,), gate="entmax15"):
    rank = None if form == "mxd" else 3
    return moe.MultilinearMoE(8, 6, n_experts=modes, form=form, rank=rank, norm=norm, gate=gate, rng=0).eval()


def x_of(rows=5):
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", FORMS)
def test_fullgraph_should_capture_without_breaks(form):
    """One graph (a break raises), forward and backward, equal to eager within 1e-5; not compiled."""
    torch._dynamo.reset()
    layer = build(form, modes=(3, 4))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = x_of().requires_grad_()
    y, eager = compiled(x), layer(x)
    torch.testing.assert_close(y, eager, rtol=1e-5, atol=1e-5)
    parameters = list(layer.parameters())
    fast = torch.autograd.grad(y.square().sum(), parameters)
    slow = torch.autograd.grad(eager.square().sum(), parameters)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)


GATES = ["alpha_entmax", *(pytest.param(g, marks=pytest.mark.slow) for g in moe.GATES if g != "alpha_entmax")]


@pytest.mark.parametrize("block", [pytest.param(False, marks=pytest.mark.slow), True], ids=["layer", "mlp"])
@pytest.mark.parametrize("gate", GATES)
def test_other_gates_and_blocks_should_be_captured(gate, block):
    torch._dynamo.reset()
    module = moe.MultilinearMLP(8, 12, n_experts=5, rank=3, gate=gate, rng=0) if block else None
    module = (module or build("cp", gate=gate, norm="batch")).eval()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x_of()), module(x_of()), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_inductor_should_compile_the_layer():
    torch._dynamo.reset()
    layer = build("cp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(layer, fullgraph=True)
        torch.testing.assert_close(compiled(x_of()), layer(x_of()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("modes", [pytest.param((12,), marks=pytest.mark.slow), (3, 4)])
def test_edited_layers_should_be_captured(modes):
    torch._dynamo.reset()
    layer = build("tr", modes=modes)
    layer.edit_(scale={1: 0.0}, bias={2: torch.ones(6)})
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x_of()), layer(x_of()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_export_should_keep_the_outputs(form):
    layer = build(form, modes=(3, 4))
    rows = torch.export.Dim("rows", min=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(layer, (x_of(),), dynamic_shapes=({0: rows},))
    for n in (2, 9):
        torch.testing.assert_close(program.module()(x_of(n)), layer(x_of(n)), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", list(moe.FORMS))
def test_onnx_should_agree(form, tmp_path):
    """onnxruntime within 1e-5, in evaluation."""
    onnxruntime = pytest.importorskip("onnxruntime")
    layer = build(form, norm="batch" if form == "cp" else "layer")
    path = tmp_path / "layer.onnx"
    rows = torch.export.Dim("rows", min=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            layer, (x_of(),), str(path), dynamo=True, dynamic_shapes=({0: rows},), verbose=False
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (name,) = [i.name for i in session.get_inputs()]
    for n in (3, 11):
        (y,) = session.run(None, {name: x_of(n).numpy()})
        torch.testing.assert_close(torch.from_numpy(y), layer(x_of(n)).detach(), rtol=1e-5, atol=1e-5)


def worker(rank, size, folder):
    """Train one step in a process and leave the gradients behind."""
    os.environ.update(MASTER_ADDR="127.0.0.1", RANK=str(rank), WORLD_SIZE=str(size))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    layer = torch.nn.parallel.DistributedDataParallel(build("cp", modes=(3, 4)).train())
    rows = x_of(8)[rank * 4 : rank * 4 + 4]
    layer(rows).square().mean().backward()
    torch.save([p.grad for p in layer.parameters()], f"{folder}/gradients-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_distributed_gradients_should_be_those_of_the_whole_batch(tmp_path):
    torch.multiprocessing.spawn(worker, args=(2, str(tmp_path)), nprocs=2)
    layer = build("cp", modes=(3, 4)).train()
    layer(x_of(8)).square().mean().backward()
    for rank in range(2):
        gradients = torch.load(tmp_path / f"gradients-{rank}.pt", weights_only=True)
        torch.testing.assert_close(gradients, [p.grad for p in layer.parameters()])

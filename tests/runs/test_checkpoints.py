import json

import numpy as np
import pytest

from metier.core.errors import InputError
from metier.runs import latest_checkpoint, save_checkpoint


def save(folder, step, **kwargs):
    rng = np.random.default_rng(step)
    arrays = {"w": rng.normal(size=(3, 2)), "mask": np.array([True, False]), "n": np.int64(step)[None]}
    save_checkpoint(
        folder, step, arrays=arrays, state={"rng": rng.bit_generator.state, "step": step}, **kwargs
    )
    return arrays, rng


def test_checkpoint_should_restore_arrays_and_generator(tmp_path):
    arrays, rng = save(tmp_path, 5)
    restored = latest_checkpoint(tmp_path)
    again = np.random.default_rng()
    again.bit_generator.state = restored.state["rng"]
    assert restored.step == 5
    assert again.random() == rng.random()
    for name, array in arrays.items():
        np.testing.assert_array_equal(restored.arrays[name], array)
        assert restored.arrays[name].dtype == array.dtype


def test_checkpoint_should_keep_the_order_of_transposed_arrays(tmp_path):
    array = np.arange(6.0).reshape(2, 3).T
    save_checkpoint(tmp_path, 1, arrays={"a": array}, state={})
    np.testing.assert_array_equal(latest_checkpoint(tmp_path).arrays["a"], array)


def test_only_the_newest_should_be_kept(tmp_path):
    for step in (1, 2, 10, 9):
        save(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-10", "step-9"]
    assert latest_checkpoint(tmp_path).step == 10


def test_no_checkpoint_should_be_none(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "missing") is None


@pytest.mark.parametrize("name", ["arrays.safetensors", "state.json", "seal.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damaged_newest_should_fall_back_to_the_one_before(tmp_path, name, damage):
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = tmp_path / "step-2" / name
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
    restored = latest_checkpoint(tmp_path)
    assert restored.step == 1
    assert "step-2" in restored.skipped[0]


def test_all_damaged_should_be_one_clear_error(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "step-1" / "state.json").write_text("{}")
    with pytest.raises(InputError, match=r"step-1: state.json is truncated or altered"):
        latest_checkpoint(tmp_path)


def test_other_version_should_be_one_clear_error(tmp_path):
    save(tmp_path, 1)
    seal = tmp_path / "step-1" / "seal.json"
    seal.write_text(json.dumps(json.loads(seal.read_text()) | {"version": 99}))
    with pytest.raises(InputError, match=r"expected checkpoint version 1 .* got version 99"):
        latest_checkpoint(tmp_path)


def test_failed_save_should_leave_the_older_untouched(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metier.runs.checkpoints.os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]
    assert latest_checkpoint(tmp_path).step == 1


def test_leftover_of_a_killed_save_should_be_ignored_and_cleared(tmp_path):
    (tmp_path / ".step-3.tmp").mkdir()
    assert latest_checkpoint(tmp_path) is None
    save(tmp_path, 4)
    assert [p.name for p in tmp_path.iterdir()] == ["step-4"]


def test_bad_step_and_state_should_be_refused(tmp_path):
    with pytest.raises(InputError, match="step=-1"):
        save_checkpoint(tmp_path, -1, arrays={}, state={})
    with pytest.raises(InputError, match="checkpoint state must be JSON"):
        save_checkpoint(tmp_path, 1, arrays={}, state={"loss": float("nan")})
    assert latest_checkpoint(tmp_path) is None

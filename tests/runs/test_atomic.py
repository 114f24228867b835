import stat

import pytest

from metier.runs import atomic_write_bytes, atomic_write_text


def test_write_should_replace_whole_content(tmp_path):
    path = tmp_path / "a.txt"
    atomic_write_text(path, "long old text")
    atomic_write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failure_should_keep_the_old_content_and_no_leftover(tmp_path, monkeypatch, step):
    path = tmp_path / "a.txt"
    atomic_write_text(path, "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"metier.runs.atomic.os.{step}", fail)
    with pytest.raises(OSError, match="No space left"):
        atomic_write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]

"""A disk that fills up at any byte, and records damaged anywhere: one line, exit code 2, and nothing lost."""

import random
import resource
import shutil

import pytest

from metier.runs import read_result

RECORDS = ("config.json", "env.json", "metrics.jsonl", "result.json")


def limited_to(size):
    """No file of the process can grow beyond `size` bytes, as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
@pytest.mark.evidence("src/metier/core", "src/metier/runs", "studies/metier_studies", "src/metier/cli")
def test_a_disk_that_fills_at_any_byte_should_be_one_line_and_lose_nothing(tmp_path, process, amount):
    words = ("cli", "run", "toy", "--json", "--out")
    _, err = process(*words, tmp_path / "calm").communicate(timeout=1200)
    calm = (tmp_path / "calm" / "result.json").read_bytes()
    sizes = [(tmp_path / "calm" / name).stat().st_size for name in (*RECORDS, "report.html")]
    limits = sorted({0, *(size // 2 for size in sizes), sizes[0] - 1})
    random.Random(0).shuffle(limits)
    for limit in limits[: amount("limits", sample=3, whole=len(limits))]:
        folder = tmp_path / str(limit)
        child = process(*words, folder, preexec_fn=limited_to(limit))
        out, err = child.communicate(timeout=1200)
        assert child.returncode == 2, err
        assert out.count('"kind": "system"') == 1
        assert "error: the system refused: File too large" in err
        assert "Traceback" not in err
        again = process(*words, folder, "--resume")
        _, err = again.communicate(timeout=1200)
        assert again.returncode == 0, err
        assert (folder / "result.json").read_bytes() == calm
        assert not [path.name for path in folder.rglob("*.tmp")]


@pytest.mark.parametrize("place", ["/proc/nowhere/run", "file/run"])
def test_a_folder_that_cannot_be_written_should_be_one_line(toy, command, place):
    (toy / "file").write_text("not a folder")
    code, out, err = command("run", "toy", "--out", place)
    assert (code, out) == (2, "")
    assert err.strip().splitlines()[-1].startswith("error: the system refused: ")


def damaged(content, moments):
    """The content cut short, with a byte changed, or with bytes of something else in its midst."""
    at = moments.randrange(len(content))
    kind = moments.choice(("cut", "byte", "insert"))
    if kind == "cut":
        return content[:at]
    if kind == "byte":
        return content[:at] + bytes([content[at] ^ moments.randrange(1, 256)]) + content[at + 1 :]
    return content[:at] + moments.randbytes(7) + content[at:]


@pytest.mark.slow
@pytest.mark.evidence(
    "src/metier/core", "src/metier/runs", "studies/metier_studies", "src/metier/cli", "src/metier/report"
)
@pytest.mark.parametrize("name", RECORDS)
def test_records_damaged_anywhere_should_never_be_a_traceback_nor_be_overwritten(toy, command, name, amount):
    command("run", "toy", "--out", "whole")
    whole, moments = read_result("whole"), random.Random(name)
    refused = 0
    for number in range(amount("damages", sample=10, whole=40)):
        folder = toy / f"damaged-{number}"
        shutil.copytree("whole", folder)
        if name == "metrics.jsonl":
            # A finished run needs its journal no more; an interrupted one does.
            (folder / "result.json").unlink()
        content = damaged((folder / name).read_bytes(), moments)
        (folder / name).write_bytes(content)
        for words in (("report", folder), ("compare", folder, "whole"), ("run", "toy", "--out", folder)):
            code, _, err = command(*words)
            assert code in (0, 2)
            assert (folder / name).read_bytes() == content
            assert (code == 2) == ("error: " in err)
        code, _, err = command("run", "toy", "--out", folder, "--resume")
        assert code in (0, 2)
        refused += code == 2
        if code == 2:
            assert (folder / name).read_bytes() == content
        elif name in ("config.json", "metrics.jsonl"):
            assert read_result(folder).losses[0].values == whole.losses[0].values
    assert refused > 0 or name == "env.json"

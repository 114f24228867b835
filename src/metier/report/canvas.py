"""A blank drawing and its SVG: deterministic bytes, colors that follow the page's light or dark theme."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Drawing

# Colors drawn as stand-ins, replaced in the SVG by the page's CSS variables (fallback: the light theme).
INK, MUTED, GRID = "#010203", "#010204", "#010205"
SERIES = tuple(f"#0102{0x10 + k:02x}" for k in range(8))
_LIGHT = ("#0b65a8", "#c2491d", "#0f7a5a", "#8450a8", "#99690a", "#b03565", "#4d6a12", "#5a626e")
_VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted, #5f6772)",
    GRID: "var(--grid, #dcdfe3)",
    **{
        stand_in: f"var(--c{k}, {light})"
        for k, (stand_in, light) in enumerate(zip(SERIES, _LIGHT, strict=True))
    },
}

# Groups that the page's style speaks to.
KEPT_IDS = "reference-label"
WIDE, NARROW = 720, 350

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "metier",
    "timezone": "UTC",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "figure.dpi": 72,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.titlecolor": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.linewidth": 0.8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "axes.labelpad": 8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.borderaxespad": 0,
    "legend.columnspacing": 1.6,
    "font.family": "DejaVu Sans",
}


@contextmanager
def blank(*, height: float, narrow: bool) -> Iterator[Drawing]:
    """Yield an empty drawing, `height` CSS pixels tall, in the house style."""
    size = 11 if narrow else 12
    sizes = {
        "font.size": size,
        "axes.labelsize": size,
        "axes.titlesize": size,
        "legend.fontsize": size,
        "xtick.labelsize": size - 1,
        "ytick.labelsize": size - 1,
    }
    with mpl.rc_context(), warnings.catch_warnings():
        # A label may hold letters that the measuring font lacks; the reader's browser has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        mpl.rcdefaults()
        mpl.rcParams.update({**_STYLE, **sizes})
        width = NARROW if narrow else WIDE
        drawing = Drawing(figsize=(width / 72, height / 72), layout="constrained")
        FigureCanvasSVG(drawing)
        yield drawing


def _drop_idle_ids(svg: str) -> str:
    """Drop the ids that nothing refers to, and the empty groups that held them."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))

    def keep(found: re.Match[str]) -> str:
        return found[0] if found[1] in used or found[1].startswith(KEPT_IDS) else ""

    return re.sub(r"\s*<g\s*/>", "", re.sub(r' id="([^"]*)"', keep, svg))


def _own_font(found: re.Match[str]) -> str:
    """Keep size and weight; the family is the page's."""
    weight = f"font-weight: {found[1].strip()}; " if found[1] else ""
    return f"{weight}font-size: {found[2]}px"


def to_svg(drawing: Drawing, *, prefix: str) -> str:
    """Return the drawing as an `<svg>` element for inlining; `prefix` keeps its ids apart from others'."""
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.S)
    view = re.search(r'viewBox="[^"]*"', svg)
    head = f'<svg {view[0] if view else ""} xmlns="http://www.w3.org/2000/svg" aria-hidden="true">'
    svg = re.sub(r"^<svg[^>]*>", head, svg)
    svg = svg.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href=", "href=")
    svg = _drop_idle_ids(svg)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"font: ((?:bold |[0-9]00 )?)([0-9.]+)px [^;\"]*", _own_font, svg)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return svg

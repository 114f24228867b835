import re

import pytest

from metier.report.page import TEMPLATES


def themes():
    """Return the color variables of the light theme, and of the dark one laid over it."""
    style = (TEMPLATES / "style.css").read_text()
    light, dark = (
        dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block)) for block in style.split(":root {")[1:3]
    )
    return {"light": light, "dark": light | dark}


def luminance(color):
    channels = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_should_be_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_should_stand_out_by_wcag_aa(theme):
    colors = themes()[theme]
    pairs = [(text, ground) for text in ("ink", "muted", "accent") for ground in ("paper", "card")]
    pairs += [(verdict, f"{verdict}-wash") for verdict in ("good", "bad", "open", "same")]
    low = {pair: contrast(colors[pair[0]], colors[pair[1]]) for pair in pairs}
    assert min(low.values()) >= 4.5, low


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_curves_should_stand_out_by_wcag(theme):
    colors = themes()[theme]
    low = {k: contrast(colors[f"c{k}"], colors["paper"]) for k in range(8)}
    assert min(low.values()) >= 3.0, low

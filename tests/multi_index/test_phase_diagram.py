"""The phase diagram beside single thresholds: lines, overlaps, phases, picture, bad input."""

import functools
import sys

import numpy as np
import pytest

from metier.core import InputError
from metier.multi_index import phase_diagram, thresholds
from metier.multi_index.fixed_points import NAMES
from metier.multi_index.phase_diagram import PHASES


@functools.cache
def diagram(decades):
    return phase_diagram(
        "He4",
        sample_ratios=np.geomspace(10, 3e4, 30),
        snrs=np.geomspace(1e-3, 10.0 ** (decades - 3), 20 * decades),
        normalize=True,
    )


@pytest.fixture
def he4():
    return diagram(1)


@pytest.mark.parametrize(
    ("decades", "k", "rtol"),
    [
        (1, 5, 1e-6),
        *(pytest.param(2, k, 1e-8, marks=pytest.mark.slow) for k in (0, 17, 30)),
    ],
)
def test_rows_should_equal_single_thresholds(decades, k, rtol):
    """Median relative error of the lines at most 1e-6."""
    d = diagram(decades)
    t = thresholds("He4", snr=float(d.snrs[k]), normalize=True, rtol=rtol)
    off = [abs(d.lines[n][k] / getattr(t, n) - 1) for n in NAMES if np.isfinite(getattr(t, n))]
    assert np.median(off) < 1e-6
    for start, overlap in d.overlaps.items():
        difference = np.abs(overlap[k] - t.overlap(d.sample_ratios, start=start))
        assert np.median(difference) < 1e-6, start
        assert difference.max() < 1e-4, start


def test_phases_should_follow_the_lines(he4):
    grid = he4.sample_ratios[None, :]
    weak, strong, detection = (
        he4.lines[n][:, None] for n in ("weak_recovery", "strong_recovery", "it_detection")
    )
    phase = np.array(PHASES)[he4.phases]
    assert (phase[grid < np.minimum(detection, weak)] == "impossible").all()
    assert (phase[(grid > detection) & (grid < weak)] == "hard").all()
    assert (phase[(grid > strong) & (grid > weak)] == "easy").all()
    assert set(phase.ravel()) == set(PHASES)


def test_detection_and_weak_recovery_should_open_a_gap_below_snr_003(he4):
    """The gap of He4 opens between snr 0.0025 and 0.003."""
    np.testing.assert_array_equal(he4.gap[he4.snrs > 0.0031], 1.0)
    assert (he4.gap[he4.snrs < 0.0024] > 1).all()


def test_kinked_and_odd_activations_should_have_diagrams():
    ratios = np.geomspace(0.1, 100, 12)
    even = phase_diagram("abs", sample_ratios=ratios, snrs=np.geomspace(0.05, 0.5, 14))
    t = thresholds("abs", snr=float(even.snrs[11]))
    np.testing.assert_allclose(
        even.overlaps["bayes"][11], t.overlap(even.sample_ratios, start="bayes"), atol=1e-6
    )
    assert np.isnan(even.lines["spinodal"]).all()
    odd = phase_diagram("tanh", sample_ratios=ratios, snrs=[0.05, 0.2, 0.5])
    assert (odd.overlaps["uninformed"] > 0).all()
    assert "nothing left" in odd.reasons["it_detection"]


def test_sign_labels_should_have_a_diagram():
    d = phase_diagram("cos", sample_ratios=[1.0, 30.0], snrs=[0.5, 1.0, 2.0], channel="sign")
    t = thresholds("cos", snr=1.0, channel="sign")
    assert d.lines["weak_recovery"][1] == pytest.approx(t.weak_recovery, rel=1e-6)


def test_grids_should_be_sorted_and_made_unique():
    d = phase_diagram("square", sample_ratios=[2.0, 1.0, 2.0], snrs=[1.0, 0.5], rtol=1e-4)
    assert d.sample_ratios.tolist() == [1.0, 2.0]
    assert d.snrs.tolist() == [0.5, 1.0]
    assert d.overlaps["bayes"].shape == (2, 2)


def test_picture_should_label_every_line(he4, tmp_path):
    figure = he4.figure()
    labels = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    assert len(labels) == len(NAMES)
    figure.savefig(tmp_path / "he4.svg")
    assert (tmp_path / "he4.svg").stat().st_size > 10_000
    assert "matplotlib" in sys.modules


def test_results_should_explain_themselves(he4):
    assert "100 ratios" not in he4.summary()
    assert "20 snr x 30 ratios" in he4.summary()
    assert he4.to_dict()["lines"]["weak_recovery"] == he4.lines["weak_recovery"].tolist()
    assert max(he4.errors.values()) < 1e-4
    with pytest.raises(AttributeError):
        he4.snrs = None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"snrs": [0.0, 1.0]}, "snrs are positive"),
        ({"snrs": [np.inf]}, "snrs are positive"),
        ({"sample_ratios": [-1.0]}, "sample_ratios are positive"),
        ({"sample_ratios": []}, "no entries"),
        ({"channel": "signs"}, "Did you mean 'sign'"),
    ],
)
def test_bad_grids_should_be_refused(change, text):
    with pytest.raises(InputError, match=text):
        phase_diagram("abs", **{"sample_ratios": [1.0], "snrs": [1.0], **change})


def test_a_constant_should_leave_everything_impossible():
    d = phase_diagram("3", sample_ratios=[1.0, 1e6], snrs=[0.1, 1.0])
    assert (d.phases == 0).all()
    assert np.isinf(d.lines["it_strong"]).all()
    assert "does not depend" in d.summary()

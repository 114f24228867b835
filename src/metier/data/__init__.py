"""Real panels with provenance, seeded simulated panels, and loaders for panels that must be fetched."""

from metier.data.bundled import BundledPanel as BundledPanel
from metier.data.bundled import load as load
from metier.data.bundled import names as names
from metier.data.bundled import registry as registry
from metier.data.bundled import verify as verify
from metier.data.oracle import autocorrelations as autocorrelations
from metier.data.oracle import oracle_gain as oracle_gain
from metier.data.panel import PanelData as PanelData
from metier.data.regime_panel import RegimePanel as RegimePanel
from metier.data.simulate import DESIGNS as DESIGNS
from metier.data.simulate import simulate_regimes as simulate_regimes

__all__ = [
    "DESIGNS",
    "BundledPanel",
    "PanelData",
    "RegimePanel",
    "autocorrelations",
    "load",
    "names",
    "oracle_gain",
    "registry",
    "simulate_regimes",
    "verify",
]

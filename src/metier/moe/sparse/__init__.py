"""Sparse mixture-of-experts layers: routers, experts, and the dispatch of tokens to them."""

from __future__ import annotations

from metier.core.extras import naming_extras

with naming_extras():
    import torch  # noqa: F401

"""Sparse mixture-of-experts layers: routers, experts, and the dispatch of tokens to them."""

from metier.core.extras import require

require("torch")

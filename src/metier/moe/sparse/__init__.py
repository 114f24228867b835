"""Sparse mixture-of-experts layers: routers, experts, and the dispatch of tokens to them."""

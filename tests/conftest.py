"""For all tests: hide a torchvision that was built for another torch, since transformers breaks on it."""

from __future__ import annotations

import importlib.util
import sys

if importlib.util.find_spec("torchvision") is not None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        sys.modules["torchvision"] = None

"""Python that a compiled graph must not freeze."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def uncompiled(function: Function) -> Function:
    """Run `function` as it is inside compiled models, which break their graph at it.

    Example:
        >>> uncompiled(len)([1, 2])
        2
    """
    return cast(Function, torch.compiler.disable(function))  # type: ignore[no-untyped-call]

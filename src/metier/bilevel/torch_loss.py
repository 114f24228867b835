"""A user's loss as one torch function: its derivatives by torch.func."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from metier.core.errors import InputError
from metier.core.extras import require

from .arrays import Floats, Rows
from .losses import Derivatives, Loss


@dataclass(frozen=True, slots=True)
class TorchLoss(Loss):
    """A loss by a torch function of one row: f(w (d,), v (q,), row) -> scalar; row maps names to tensors.

    Args:
        function: The loss of one row, in torch operations that `torch.func` can differentiate.

    Example:
        >>> loss = TorchLoss(lambda w, v, z: (v[0] - w[0] * z["T"]) ** 2 / 2)
        >>> loss.derivatives(np.array([2.0]), np.array([[1.0]]), {"T": np.array([3.0])}).d2_wv.item()
        -3.0
    """

    function: Callable[..., Any]

    def derivatives(self, w: Floats, v: Floats, rows: Rows) -> Derivatives:
        """Return value and derivatives by automatic differentiation in float64."""
        torch: Any = require("torch")
        functional = torch.func
        batch = {
            name: torch.as_tensor(np.ascontiguousarray(x)) for name, x in rows.items() if x.dtype != object
        }
        at = torch.as_tensor(np.array(w, dtype=np.float64)), torch.as_tensor(np.array(v, dtype=np.float64))

        def call(w_: Any, v_: Any, row: Any) -> Any:
            out = self.function(w_, v_, row)
            if getattr(out, "shape", None) != ():
                raise InputError(
                    "a torch loss returns the loss of one row",
                    expected="a scalar tensor",
                    got=f"shape {tuple(out.shape)}" if hasattr(out, "shape") else type(out).__name__,
                    next_step="v has shape (q,): write v[0] where q = 1, or sum over coordinates.",
                )
            return out

        in_v = functional.jacrev(call, argnums=1)
        in_vv = functional.jacrev(in_v, argnums=1)
        wanted = {
            "value": call,
            "d_v": in_v,
            "d2_v": in_vv,
            "d_w": functional.jacrev(call, argnums=0),
            "d2_wv": functional.jacrev(in_v, argnums=0),
            "d3_v": functional.jacrev(in_vv, argnums=1),
            "d3_wvv": functional.jacrev(in_vv, argnums=0),
        }
        found = {
            name: functional.vmap(f, in_dims=(None, 0, 0))(*at, batch).detach().numpy().astype(np.float64)
            for name, f in wanted.items()
        }
        # torch puts the derivative that was taken last in the last axis.
        found["d2_wv"] = np.moveaxis(found["d2_wv"], -1, 1)
        found["d3_wvv"] = np.moveaxis(found["d3_wvv"], -1, 1)
        return Derivatives(**found)

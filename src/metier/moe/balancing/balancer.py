"""The balancer: potential x memory x what is tracked x where the price enters, exact in parallel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from metier.core.checks import non_negative, one_of, positive_int
from metier.core.errors import InputError

from .bias_rules import BIAS_RULES, BIAS_STRENGTHS, BiasRule, StepLoads
from .gating import gate_probabilities, masked_logits, route_counts
from .inject import Inject, inside_backward
from .layers import Block, Layers, unknown_layer
from .memory import resolve_memory
from .paper_price import PaperPrices
from .potentials import Potential, resolve_potential
from .quantiles import count_distances, distance_to_selection, histogram_quantile
from .reduce import reduce_step
from .state import pack_state, unpack_state
from .step_report import StepReport, report_of

HISTOGRAM_BINS = 1024


class Balancer:
    r"""Balance the routers of a sparse mixture of experts over the whole stream of tokens.

    Per layer, with m the remembered loads (`track` says of what), q = price(m) and alpha = `strength`:
    the loss gains alpha sum_e q_e p_e, p the mean gate values of the step's tokens, with gradient only
    through p (`sink="aux"`); or the selection gains a bias b_e (`sink="bias"`); or both. With the lagged
    price, q is what it was when the step began, so that any split of a step into micro-batches and ranks
    gives the same gradient and the same state.

    A router calls, in this order: `bias(layer)` before it selects, `observe` after, and `inject` on the gate
    values that it returns. The training loop calls `step` once per optimizer step.

    Args:
        potential: Name or `moe.Potential`; its gradient is the price.
        strength: alpha, the weight of the balancing loss at curvature E.
        half_life_tokens: Tokens after which a remembered load counts half.
        weight_new: Or a constant weight of the new step, in (0, 1]. None of the three means 0.05.
        running: Or the mean over all steps.
        track: "soft" remembers gate values; "hard" remembers choices, with the gradient through the
            gate values.
        sink: "aux" prices in the loss, "bias" biases in the selection, "both".
        price: "lagged" (exact) or "paper": this batch is folded in before its own price is read.
        loss_scale: What the injected gradient is multiplied by: the number of ranks if the reducer averages
            over ranks, the scale of mixed precision, 1 / micro-batches without `tokens_per_step`.
        tokens_per_step: Tokens of a step over all micro-batches and ranks (masked ones not counted).
            None: the mean over the micro-batch, exact with `loss_scale` if all are of equal size.
        bias_rule: "potential", "sign", "proportional", "quantile"; None means "potential".
        bias_strength: Its step; None means the rule's default.
        z_loss: Weight of the mean squared logsumexp of the logits, added to the loss.
        target: Loads to aim for, shape (E,); None means 1/E each.

    Raises:
        InputError: A setting is unknown or out of range, or settings contradict each other.

    Example:
        >>> balancer = Balancer("shannon", 0.01, half_life_tokens=64)
        >>> layer = balancer.add_layer("mlp.gate", n_experts=4, top_k=1)
        >>> logits = torch.tensor([[2.0, 0.0, 0.0, 0.0]]).repeat(64, 1).requires_grad_()
        >>> for _ in range(2):
        ...     scores, indices = logits.softmax(-1).max(-1, keepdim=True)
        ...     aux = balancer.observe(layer, logits, indices=indices)
        ...     scores = balancer.inject(scores, aux)
        ...     logits.grad = None
        ...     (0.0 * scores).sum().backward()
        ...     balancer.step()
        >>> [round(x, 3) for x in logits.grad.mean(0).mul(6400).tolist()]
        [0.225, -0.075, -0.075, -0.075]

    Source: phi-Balancing (arXiv 2605.15403), Algorithm 1; the lagged price, token memory, bias sink and
    exact reduction are ours.
    """

    def __init__(
        self,
        potential: str | Potential = "shannon",
        strength: float = 0.01,
        *,
        half_life_tokens: float | None = None,
        weight_new: float | None = None,
        running: bool = False,
        track: Literal["soft", "hard"] = "soft",
        sink: Literal["aux", "bias", "both"] = "aux",
        price: Literal["lagged", "paper"] = "lagged",
        loss_scale: float = 1.0,
        tokens_per_step: float | None = None,
        bias_rule: str | None = None,
        bias_strength: float | None = None,
        z_loss: float = 0.0,
        target: Any = None,
    ) -> None: ...

    def add_layer(
        self,
        name: str | None = None,
        *,
        n_experts: int,
        top_k: int,
        device: torch.device | str | None = None,
    ) -> str:
        """Register a layer before training, in the same order on every rank.

        Args:
            name: Its name, unique; None gives "layer_0", "layer_1", ...
            n_experts: E, at least 2.
            top_k: Experts per token.
            device: Where its router runs; None is the CPU until the router is first seen elsewhere.

        Returns:
            The name.
        """
        ...

    def observe(
        self,
        layer: str,
        logits: Tensor | None = None,
        *,
        indices: Tensor,
        probs: Tensor | None = None,
        scores: Tensor | None = None,
        mask: Tensor | None = None,
        router: Literal["softmax", "sigmoid"] = "softmax",
        training: bool = True,
    ) -> Tensor | None:
        """Count a router's decisions and return the balancing loss of these tokens.

        Nothing is counted in evaluation and while activations are recomputed; the loss is returned there
        too, so that the recomputed graph is the same. No value is read on the host.

        Args:
            layer: The layer's name.
            logits: Raw router logits, (..., E).
            indices: Chosen experts, (..., k); ids >= E (absent under expert parallelism) are not counted.
            probs: Instead of logits: gate values over all experts, rows on the simplex, with gradient.
            scores: Selection scores before the bias, (..., E), for the quantile rule; None takes the softmax
                or sigmoid of the logits.
            mask: True where a token counts, (...,); None counts all.
            router: How logits become probabilities: "softmax" over all experts, or "sigmoid" normalized.
            training: The router's `module.training`.

        Returns:
            A scalar with gradient through the gate values, for `inject`; None in evaluation or where no loss
            enters (sink="bias" without z_loss).
        """
        ...

    def inject(self, scores: Tensor, aux: Tensor | None) -> Tensor:
        """Return `scores`, with the gradient of `aux` joined to their backward pass.

        The result must be used by the model in place of `scores`. `aux` may instead be added to the
        loss, where the loop can reach it; never both.
        """
        ...

    def bias(self, layer: str) -> Tensor | None:
        """Return the selection bias, (E,) float32, or None where the sink is "aux".

        Add it to the scores that select, never to the gate values. It is constant within a step; in
        evaluation it stays in force.
        """
        ...

    def step(self, group: Any = None) -> None:
        """Finish an optimizer step: one all-reduce, then new loads, prices and biases.

        Args:
            group: Process group (or one-dimensional device mesh) of the ranks that saw different tokens; None
                is the default group where torch.distributed is initialized; False reduces nothing.

        Raises:
            InputError: A layer was never called since the last step, logits were not finite, the
                injected gradient never arrived, or the ranks' balancers differ. Nothing was changed then.
        """
        ...

    def discard(self) -> None:
        """Forget what was counted since the last step, for a step that the loop skips."""
        ...

    @property
    def loss(self) -> Tensor:
        """Value of the loss as injected on this rank: of the current step, or of the last finished one."""
        ...

    def metrics(self) -> dict[str, float]:
        """Return the last step's figures: means over layers and the worst layer, in bounded keys."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return loads, prices, biases, counts and what they belong to; taken between two steps."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state; refused where potential, settings, layers or expert counts differ."""
        ...

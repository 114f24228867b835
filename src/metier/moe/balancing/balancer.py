"""The balancer: potential x memory x what is tracked x where the price enters, exact in parallel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor

from metier.core.checks import ensure, non_negative, one_of, positive_int

from .bias_rules import BIAS_RULES, BIAS_STRENGTHS
from .calls import Inject, InjectedLoss, RouterCall, inside_backward, read_tokens, selection_scores
from .layers import Block, Layers, pack_state, unpack_state
from .memory import PaperPrices, fold, resolve_memory
from .potential_members import resolve_potential
from .potentials import Potential
from .steps import BlockUpdate, StepReport, reduce_step

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
        running: Or the mean over all steps that had tokens for the layer.
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
        [0.21, -0.07, -0.07, -0.07]

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
    ) -> None:
        self.potential = resolve_potential(potential, target=target)
        self.strength = non_negative("strength", strength)
        self.memory = resolve_memory(half_life_tokens, weight_new, running)
        self.track = one_of("track", track, ("soft", "hard"))
        self.sink = one_of("sink", sink, ("aux", "bias", "both"))
        self.price_mode = one_of("price", price, ("lagged", "paper"))
        self.loss_scale = non_negative("loss_scale", loss_scale)
        self.tokens_per_step = _checked_tokens(tokens_per_step)
        ensure(
            self.sink != "aux" or (bias_rule is None and bias_strength is None),
            "a bias rule needs a bias to move",
            expected='sink="bias" or sink="both"',
            got=f'sink="aux" with bias_rule={bias_rule!r}, bias_strength={bias_strength!r}',
            next_step='Pass sink="bias", or drop the bias settings.',
        )
        self.bias_rule = one_of("bias_rule", bias_rule or "potential", BIAS_RULES)
        default = BIAS_STRENGTHS[self.bias_rule]
        self.bias_strength = (
            default if bias_strength is None else non_negative("bias_strength", bias_strength)
        )
        self.z_loss = non_negative("z_loss", z_loss)
        self.steps = 0
        self.last: StepReport | None = None
        self._layers = Layers()
        self._paper = PaperPrices()
        self._injected_loss = InjectedLoss()
        self._pending = False
        self._injected = self._arrived = 0

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
        name = f"layer_{len(self._layers.rows)}" if name is None else name
        n_experts, top_k = self.check_layer(name, n_experts=n_experts, top_k=top_k)
        start = self.potential.target_loads(torch.zeros(n_experts, dtype=torch.float64))
        bins = HISTOGRAM_BINS if self._uses_scores else 0
        place = torch.device("cpu" if device is None else device)
        self._layers.add(name, n_experts, top_k, start=start, device=place, bins=bins)
        return name

    def check_layer(self, name: str, *, n_experts: int, top_k: int) -> tuple[int, int]:
        """Return `n_experts` and `top_k`, or refuse what `add_layer` would refuse; nothing is changed."""
        ensure(
            name not in self._layers.rows,
            "layer names are unique",
            expected="a new name",
            got=f"{name!r} a second time",
            next_step="Use one balancer per model, and one name per router.",
        )
        n_experts, top_k = positive_int("n_experts", n_experts, minimum=2), positive_int("top_k", top_k)
        ensure(
            top_k < n_experts + (not self._uses_scores),
            f"top_k of layer {name!r} leaves a choice",
            expected=f"{'fewer than' if self._uses_scores else 'at most'} n_experts={n_experts}",
            got=f"top_k={top_k}",
            next_step="Pass the router's own top_k and n_experts.",
        )
        return n_experts, top_k

    @property
    def has_bias(self) -> bool:
        """Whether it moves a selection bias."""
        return self.sink != "aux"

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
        if not training:
            return None
        block, row = self._at(layer, indices.device)
        # Autocast would round prices, and with a mask also counts, to the narrow type of its products.
        kind = "cpu" if indices.is_meta else indices.device.type  # "meta" has no autocast
        with torch.autocast(kind, enabled=False):
            tokens = read_tokens(
                layer, block.n_experts, logits=logits, probs=probs, indices=indices, mask=mask, router=router
            )
            counting = not inside_backward()
            call = RouterCall(tokens, block.n_experts)
            with torch.no_grad():
                if counting:
                    call.count(block, row, given=logits is None)
                    self._pending = True
                    if block.bins:
                        own = selection_scores(tokens, router) if scores is None else scores.detach()
                        call.count_scores(block, row, own)
                price = self._price(layer, block, row, call, counting=counting)
            aux = call.loss(
                price,
                strength=None if self.sink == "bias" else self.strength,
                z_loss=self.z_loss,
                scale=self.loss_scale,
                tokens_per_step=self.tokens_per_step,
            )
        if counting and aux is not None:
            self._injected_loss.add(aux.detach())
        return aux

    def inject(self, scores: Tensor, aux: Tensor | None) -> Tensor:
        """Return `scores`, with the gradient of `aux` joined to their backward pass.

        The result must be used by the model in place of `scores`. `aux` may instead be added to the
        loss, where the loop can reach it; never both.
        """
        if aux is None:
            return scores
        if torch.is_grad_enabled() and aux.requires_grad and not inside_backward():
            self._injected += 1
        return cast(Tensor, Inject.apply(scores, aux, self._arrive))  # type: ignore[no-untyped-call]

    def bias(self, layer: str) -> Tensor | None:
        """Return the selection bias, (E,) float32, or None where the sink is "aux".

        Add it to the scores that select, never to the gate values. It is constant within a step; in
        evaluation it stays in force.
        """
        block, row = self._layers.find(layer)
        return block.bias[row] if self.has_bias else None

    @torch.no_grad()
    def step(self, group: Any = None) -> None:
        """Finish an optimizer step: one all-reduce, then new loads, prices and biases.

        Before the first one the ranks of a group compare their layers, in one more reduction of four numbers.

        Args:
            group: Process group (or one-dimensional device mesh) of the ranks that saw different tokens; None
                is the default group where torch.distributed is initialized; False reduces nothing.

        Raises:
            InputError: A layer was never called since the last step, logits were not finite, the
                injected gradient never arrived, or the ranks' balancers differ. Nothing was changed then.
        """
        if self.price_mode == "paper":
            # Ranks folded their own batches; their memories are averaged by tokens.
            for block in self._layers.blocks:
                block.part("folded").copy_(block.ema * block.part("tokens")[:, None])
        tokens, world = reduce_step(
            self._layers, group, setting=self.describe(), injected=self._injected, arrived=self._arrived
        )
        change = BlockUpdate(
            potential=self.potential,
            memory=self.memory,
            track=self.track,
            price_mode=self.price_mode,
            bias_rule=BIAS_RULES[self.bias_rule] if self.has_bias else None,
            bias_strength=self.bias_strength,
        )
        noise: dict[str, float] = {}
        self.last = StepReport(
            blocks=tuple(change.apply(block, tokens, world, noise) for block in self._layers.blocks),
            noise=noise,
            names=tuple(self._layers.names),
            hard=self.track == "hard",
            potential=self.potential,
        )
        self.steps += 1
        self._clear()

    def discard(self) -> None:
        """Forget what was counted since the last step, for a step that the loop skips."""
        self._clear()
        self._injected_loss.clear()

    @property
    def loss(self) -> Tensor:
        """Value of the loss as injected on this rank: of the current step, or of the last finished one."""
        return self._injected_loss.value()

    def metrics(self) -> dict[str, float]:
        """Return the last step's figures: means over layers and the worst layer, in bounded keys."""
        if self.last is None:
            return {}
        biases = [block.bias for block in self._layers.blocks]
        figures = {"loss": float(self.loss), "steps": float(self.steps), **self.last.to_dict()}
        if self.sink != "aux":
            figures["bias_range/worst"] = max(float((b.amax(-1) - b.amin(-1)).max()) for b in biases)
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Return loads, prices, biases, counts and what they belong to; taken between two steps."""
        ensure(
            not self._pending,
            "a state is taken between two steps",
            expected="balancer.step() since the last forward pass in training mode",
            got="counts of an unfinished step",
            next_step="Call step() before saving, or discard() to drop the unfinished counts.",
        )
        return pack_state(
            self._layers, potential=self.potential.identity(), track=self.track, steps=self.steps
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state; refused where potential, `track`, layers or expert counts differ.

        Strength, memory and sink are this balancer's own: they may change from one run to the next.
        """
        self.steps = unpack_state(state, self._layers, potential=self.potential.identity(), track=self.track)
        self._clear()
        self._injected_loss.clear()
        self.last = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the registered layers."""
        return tuple(self._layers.names)

    def loads(self, layer: str) -> Tensor:
        """Return the remembered loads of a layer, (E,)."""
        block, row = self._layers.find(layer)
        return block.ema[row].clone()

    def prices(self, layer: str) -> Tensor:
        """Return the centered prices of a layer's experts, (E,): what `observe` multiplies gates with."""
        block, row = self._layers.find(layer)
        return block.price[row].clone()

    def describe(self) -> str:
        """Return what ranks must have in common, as text."""
        bias = (
            ""
            if self.sink == "aux"
            else f", bias_rule={self.bias_rule}, bias_strength={self.bias_strength:g}"
        )
        return (
            f"{self.potential.identity()}, strength={self.strength:g}, {self.memory.describe()}, "
            f"track={self.track}, sink={self.sink}, price={self.price_mode}{bias}"
        )

    def __repr__(self) -> str:
        return f"Balancer({self.describe()}; {len(self._layers.rows)} layers, {self.steps} steps)"

    @property
    def _uses_scores(self) -> bool:
        return self.sink != "aux" and self.bias_rule == "quantile"

    def _at(self, layer: str, device: torch.device) -> tuple[Block, int]:
        block, row = self._layers.find(layer)
        return (block, row) if block.device == device else self._layers.move(layer, device)

    def _price(self, layer: str, block: Block, row: int, call: RouterCall, *, counting: bool) -> Tensor:
        """Return the prices that these tokens pay."""
        if self.price_mode == "lagged":
            return block.price[row]
        loads = call.loads(self.track)
        if not counting:
            again = self._paper.recall(layer, loads)
            return block.price[row] if again is None else again
        fold(block.ema[row], loads, self.memory, tokens=call.count_tensor, folds=block.folds[row])
        block.folds[row] += 1
        price = self.potential.price(block.ema[row]).to(block.price.dtype)
        self._paper.keep(layer, loads, price)
        return price

    def _arrive(self) -> None:
        self._arrived += 1

    def _clear(self) -> None:
        for block in self._layers.blocks:
            block.clear()
        self._paper.clear()
        self._injected = self._arrived = 0
        self._pending = False
        self._injected_loss.finish()


def _checked_tokens(tokens: float | None) -> float | None:
    ensure(
        tokens is None or non_negative("tokens_per_step", tokens) > 0,
        "tokens_per_step is the number of tokens of an optimizer step",
        expected="more than 0, or None where it is not known",
        got=tokens,
        next_step="Count the tokens of all micro-batches and ranks that are not masked.",
    )
    return tokens

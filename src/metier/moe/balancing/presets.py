"""Balancers by name: phi-balancing in three forms, and the rivals in their published settings."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from metier.core.checks import ensure, one_of

from .balancer import Balancer
from .bias_rules import BIAS_STRENGTHS
from .potentials import Potential


@dataclass(frozen=True, slots=True)
class Preset:
    """What a name stands for.

    Attributes:
        settings: Fixed arguments of `Balancer`.
        strength: Default strength; None takes the default of the bias rule.
        into: The argument that `strength` becomes.
        weight_new: Default memory.
        memory: Whether a memory can be chosen: without it the published method has none.
        rules: Bias rules to choose from, the first the default.
        source: Where the method was published.
    """

    settings: MappingProxyType[str, Any]
    strength: float | None
    into: str = "strength"
    weight_new: float | None = None
    memory: bool = True
    rules: tuple[str, ...] = ()
    source: str = ""

    @property
    def has_potential(self) -> bool:
        """Whether the potential can be chosen."""
        return "potential" not in self.settings


def _preset(strength: float | None, source: str, **keywords: Any) -> Preset:
    fields = {k: keywords.pop(k) for k in ("into", "weight_new", "memory", "rules") if k in keywords}
    return Preset(MappingProxyType(keywords), strength, source=source, **fields)


_PHI, _OURS = "phi-Balancing, arXiv 2605.15403", "ours"
PRESETS: MappingProxyType[str, Preset] = MappingProxyType(
    {
        "phi": _preset(0.01, f"{_PHI}; lagged price: {_OURS}", weight_new=0.05),
        "phi_paper": _preset(0.01, f"{_PHI}, Algorithm 1", weight_new=0.65, price="paper"),
        "phi_bias": _preset(
            None,
            _OURS,
            into="bias_strength",
            weight_new=0.02,
            rules=("potential",),
            track="hard",
            sink="bias",
        ),
        "switch": _preset(
            0.01,
            "Switch Transformer, arXiv 2101.03961, per layer and micro-batch",
            weight_new=1.0,
            memory=False,
            potential="quadratic",
            track="hard",
            price="paper",
        ),
        "global_switch": _preset(
            0.01,
            "Global-batch balance, arXiv 2501.11873; lagged by one step",
            weight_new=1.0,
            memory=False,
            potential="quadratic",
            track="hard",
        ),
        "loss_free": _preset(
            None,
            "Loss-free balancing, arXiv 2408.15664; recentered",
            into="bias_strength",
            weight_new=1.0,
            memory=False,
            rules=("sign", "proportional"),
            potential="quadratic",
            track="hard",
            sink="bias",
        ),
        "quantile": _preset(
            None,
            "Quantile balancing as in torchtitan; recentered",
            into="bias_strength",
            weight_new=1.0,
            memory=False,
            rules=("quantile",),
            potential="quadratic",
            track="hard",
            sink="bias",
        ),
    }
)
"""The presets by name."""


def balancer(
    name: str,
    *,
    strength: float | None = None,
    half_life_tokens: float | None = None,
    potential: str | Potential = "shannon",
    weight_new: float | None = None,
    running: bool = False,
    rule: str | None = None,
    target: Any = None,
    loss_scale: float = 1.0,
    tokens_per_step: float | None = None,
    z_loss: float = 0.0,
) -> Balancer:
    r"""Return a balancer by name.

    | name | what enters | default strength | default memory |
    |---|---|---|---|
    | phi | lagged price of the expected load, in the loss | 0.01 | weight_new 0.05 |
    | phi_paper | the same, the batch folded in before its price is read | 0.01 | weight_new 0.65 |
    | phi_bias | -strength price of the remembered choices, as a selection bias | 0.3 | weight_new 0.02 |
    | switch | E sum f p of the micro-batch, in the loss | 0.01 | none |
    | global_switch | E sum f p with the choices of the whole last step, in the loss | 0.01 | none |
    | loss_free | bias moved by strength sign(mean - load), or in proportion | 0.001 or 0.01 | the bias |
    | quantile | bias at which each expert wins its share of the step's tokens | 1 | the bias |

    Args:
        name: One of the names above.
        strength: Weight of the loss at curvature E, or step of the bias; None takes the default. For
            quantile it is how far the bias moves to the quantile, 1 all the way.
        half_life_tokens: Tokens after which a remembered load counts half (phi names only).
        potential: Name or `moe.Potential` (phi names only).
        weight_new: Or the constant weight of the new step (phi names only).
        running: Or the mean over all steps (phi names only).
        rule: "sign" or "proportional" (loss_free only).
        target: Loads to aim for, shape (E,).
        loss_scale: As in `Balancer`.
        tokens_per_step: As in `Balancer`.
        z_loss: Weight of the mean squared logsumexp of the logits; 0.001 is usual.

    Returns:
        The balancer, without layers: pass it to `moe.attach` or `moe.SparseMoE`.

    Raises:
        InputError: The name is unknown, or a setting has no meaning for it.

    Example:
        >>> balancer("phi", strength=0.02, half_life_tokens=100_000).describe()
        'Shannon(), strength=0.02, half_life_tokens=100000, track=soft, sink=aux, price=lagged'
        >>> balancer("loss_free", rule="proportional").bias_strength
        0.01
    """
    preset = PRESETS[one_of("name", name, PRESETS)]
    memory_given = half_life_tokens is not None or weight_new is not None or running
    _refuse(not preset.memory and memory_given, name, "memory", "half_life_tokens, weight_new or running")
    _refuse(
        not preset.has_potential and potential != "shannon", name, "potential", f"potential={potential!r}"
    )
    _refuse(rule is not None and len(preset.rules) < 2, name, "rule", f"rule={rule!r}")
    settings: dict[str, Any] = {"potential": potential, **preset.settings}
    if preset.rules:
        settings["bias_rule"] = one_of("rule", rule or preset.rules[0], preset.rules)
    default = BIAS_STRENGTHS[settings["bias_rule"]] if preset.strength is None else preset.strength
    settings[preset.into] = default if strength is None else strength
    if not memory_given:
        weight_new = preset.weight_new
    return Balancer(
        half_life_tokens=half_life_tokens,
        weight_new=weight_new,
        running=running,
        target=target,
        loss_scale=loss_scale,
        tokens_per_step=tokens_per_step,
        z_loss=z_loss,
        **settings,
    )


def _refuse(meaningless: bool, name: str, what: str, got: str) -> None:
    ensure(
        not meaningless,
        f"balancer {name!r} has no {what} to choose",
        expected="its published form",
        got=got,
        next_step="Drop the setting, or build a moe.Balancer from its parts.",
    )

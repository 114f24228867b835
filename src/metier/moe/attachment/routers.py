"""The routers of a model: how each family is read and biased, and where they are under wrappers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from metier.core.checks import ensure, one_of
from metier.core.errors import InputError

from . import selection

Select = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]


def first_three(output: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return (logits, scores, indices) of a router that returns them first, in this order."""
    logits, scores, indices = output[:3]
    return logits, scores, indices


def replace_scores_and_indices(output: Any, scores: Tensor, indices: Tensor) -> Any:
    """Return a router's output with new scores and indices in the second and third place."""
    return (output[0], scores, indices, *output[3:])


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterFamily:
    """What `attach` and `audit` must know of a kind of router.

    A router is a module whose forward returns, among other things, raw logits z (N, E), gate values
    (N, k) and expert indices (N, k). `read` finds the three in its output, `write` puts new gate values
    and indices back. A selection bias b enters in one of two ways: the model has a buffer of its own
    that it adds to the scores before choosing (`bias_buffer`), or `select` computes the choice anew.

    Args:
        name: What the family is called in messages.
        routers: Class names of its router modules; subclasses count.
        gating: "softmax" | "sigmoid", or router -> one of them: how logits become scores. Sigmoid scores are
            normalized over the experts by softmax(logsigmoid(z)).
        select: (router, logits, bias) -> (gate values, indices); with bias 0 it must give what the
            router gives. None where the model has a `bias_buffer`, or where no bias is possible.
        bias_buffer: Dotted name of the model's own selection bias, of E entries, on the router or on the
            module that holds the router.
        n_experts: Attribute of the router that holds E.
        top_k: Attribute of the router that holds k.
        read: Router output -> (logits, gate values, indices).
        write: (router output, gate values, indices) -> router output.

    Raises:
        InputError: `gating` is unknown, or `routers` is empty.

    Example:
        >>> from metier.moe import RouterFamily
        >>> mine = RouterFamily(name="mine", routers=("MyRouter",), gating="softmax")
        >>> mine.takes_bias
        False

    Source: ours; the routers' behavior is read from transformers 5.
    """

    name: str
    routers: tuple[str, ...]
    gating: str | Callable[[nn.Module], str]
    select: Select | None = None
    bias_buffer: str | None = None
    n_experts: str = "num_experts"
    top_k: str = "top_k"
    read: Callable[[Any], tuple[Tensor, Tensor, Tensor]] = first_three
    write: Callable[[Any, Tensor, Tensor], Any] = replace_scores_and_indices

    def __post_init__(self) -> None:
        """Refuse a family that could not be used."""
        if not callable(self.gating):
            one_of("gating", self.gating, ("softmax", "sigmoid"))
        ensure(
            bool(self.routers) and not isinstance(self.routers, str),
            "a router family names its router classes",
            expected="a tuple of class names",
            got=repr(self.routers),
            next_step='Pass routers=("MyRouter",).',
        )

    @property
    def takes_bias(self) -> bool:
        """Whether a selection bias can enter this family's choice."""
        return self.select is not None or self.bias_buffer is not None


_DEEPSEEK_V3 = (
    "AXK1TopkRouter",
    "AXK2TopkRouter",
    "BailingHybridTopkRouter",
    "DeepseekV3TopkRouter",
    "DeepseekV32TopkRouter",
    "Dots1TopkRouter",
    "Dots3NoteTextTopkRouter",
    "ExaoneMoeTopkRouter",
    "Glm4MoeTopkRouter",
    "Glm4MoeLiteTopkRouter",
    "Glm4vMoeTextTopkRouter",
    "Glm5NextTextTopkRouter",
    "GlmMoeDsaTopkRouter",
    "HYV4TopkRouter",
    "HYV4VLTopkRouter",
    "KimiLinearTopkRouter",
    "MiMoV2FlashTopkRouter",
    "NemotronHTopkRouter",
    "SolarOpenTopkRouter",
)

FAMILIES: dict[str, RouterFamily] = {
    family.name: family
    for family in (
        RouterFamily(
            name="softmax over all experts, then top-k",
            routers=(
                "FlexOlmoTopKRouter",
                "HunYuanMoEV1Gate",
                "MellumTopKRouter",
                "MiniMaxTopKRouter",
                "MixtralTopKRouter",
                "OlmoeTopKRouter",
                "Qwen2MoeTopKRouter",
                "Qwen3MoeTopKRouter",
                "Qwen3NextTopKRouter",
                "Qwen3OmniMoeTalkerTextTopKRouter",
                "Qwen3OmniMoeTextTopKRouter",
                "Qwen3OmniMoeThinkerTextTopKRouter",
                "Qwen3VLMoeTextTopKRouter",
                "Qwen3_5MoeTopKRouter",
                "Qwen4ExpTextTopKRouter",
            ),
            gating="softmax",
            select=selection.softmax_then_top_k,
        ),
        RouterFamily(
            name="softmax over all experts, then top-k, gates as they are",
            routers=("JambaTopKRouter",),
            gating="softmax",
            select=selection.softmax_then_top_k_plain,
        ),
        RouterFamily(
            name="top-k of the logits, then softmax",
            routers=(
                "AriaTextTopKRouter",
                "GptOssTopKRouter",
                "GraniteMoeHybridTopKRouter",
                "GraniteMoeSWATopKRouter",
                "GraniteMoeSharedTopKRouter",
                "GraniteMoeTopKRouter",
            ),
            gating="softmax",
            select=selection.top_k_then_softmax,
        ),
        RouterFamily(
            name="top-k of the logits, then softmax over k",
            routers=("OpenAIPrivacyFilterTopKRouter",),
            gating="softmax",
            select=selection.top_k_then_softmax_over_k,
        ),
        RouterFamily(
            name="group-limited softmax",
            routers=("DeepseekOcr2TextTopkRouter", "DeepseekV2TopkRouter", "UnlimitedOcrTextTopkRouter"),
            gating="softmax",
            select=selection.group_limited_softmax,
        ),
        RouterFamily(
            name="group-limited sigmoid with a correction bias",
            routers=_DEEPSEEK_V3,
            gating="sigmoid",
            bias_buffer="e_score_correction_bias",
        ),
        RouterFamily(
            name="sigmoid with a correction bias",
            routers=("BeamTopKRouter", "LagunaTopKRouter", "MiniMaxM3VLTopKRouter", "Step3p7TopKRouter"),
            gating="sigmoid",
            bias_buffer="e_score_correction_bias",
        ),
        RouterFamily(
            name="sigmoid with the block's correction bias",
            routers=("Dots3NoteVisionTopKRouter", "HYV3TopKRouter", "MiniMaxM2TopKRouter"),
            gating="sigmoid",
            bias_buffer="e_score_correction_bias",
        ),
        RouterFamily(
            name="sigmoid with the block's expert bias",
            routers=("AfmoeTokenChoiceRouter", "Lfm2MoeTopKRouter"),
            gating="sigmoid",
            bias_buffer="expert_bias",
        ),
        RouterFamily(
            name="softmax with a correction bias",
            routers=("Ernie4_5_MoeTopKRouter", "Ernie4_5_VLMoeMoeTopKRouter"),
            gating="softmax",
            bias_buffer="moe_statics.e_score_correction_bias",
        ),
        RouterFamily(
            name="metier.moe.TopKRouter",
            routers=("TopKRouter",),
            gating=lambda router: "sigmoid" if router.routing == "sigmoid" else "softmax",
            bias_buffer="selection_bias",
            n_experts="n_experts",
        ),
        RouterFamily(
            name="sigmoid, then top-k",
            routers=("FlintTopKRouter",),
            gating="sigmoid",
            select=selection.sigmoid_then_top_k,
        ),
    )
}


def router_families(families: Iterable[RouterFamily] = ()) -> dict[str, RouterFamily]:
    """Return the family of every known router class name; `families` come first and may replace ours.

    Args:
        families: Families of your own.

    Returns:
        Router class name -> its family.

    Example:
        >>> from metier import moe
        >>> moe.router_families()["MixtralTopKRouter"].gating
        'softmax'
    """
    known = {router: family for family in FAMILIES.values() for router in family.routers}
    known.update({router: family for family in families for router in family.routers})
    return known


_WRAPPERS = re.compile(
    r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_layer"
    r"|original_module|modules_to_save\.[^.]+)(?=\.|$)"
)
_PREFIXES = re.compile(r"^(?:module\.|base_model\.model\.)+")


@dataclass(frozen=True, slots=True)
class FoundRouter:
    """A router of a model, with what is needed to read and to bias it.

    Attributes:
        name: Its name without the names of wrappers, so that a saved state fits the bare model too.
        module: The router.
        owner: The module that holds it, or None.
        family: Its family.
    """

    name: str
    module: nn.Module
    owner: nn.Module | None
    family: RouterFamily

    @property
    def n_experts(self) -> int:
        """E."""
        return int(getattr(self.module, self.family.n_experts))

    @property
    def top_k(self) -> int:
        """k."""
        return int(getattr(self.module, self.family.top_k))

    @property
    def gating(self) -> str:
        """How its logits become scores: "softmax" or "sigmoid"."""
        gating = self.family.gating
        return one_of("gating", gating(self.module) if callable(gating) else gating, ("softmax", "sigmoid"))

    def bias_buffer(self) -> Tensor | None:
        """Return the model's own selection bias, or None where it has none."""
        for holder in (self.module, self.owner):
            buffer: Any = holder
            for part in (self.family.bias_buffer or "").split("."):
                buffer = getattr(buffer, part, None) if part else None
            if isinstance(buffer, Tensor):
                return buffer
        return None


def find_routers(model: nn.Module, families: Iterable[RouterFamily] = ()) -> list[FoundRouter]:
    """Return the routers of a model in the order of its modules.

    Args:
        model: A model, plain or wrapped by PEFT, `torch.compile`, DDP, FSDP.
        families: Families of your own.

    Raises:
        InputError: The model has no router that a family knows.
    """
    known = router_families(families)
    modules = dict(model.named_modules())
    routers = []
    for path, module in modules.items():
        family = _family_of(module, known)
        if family is not None and not _is_idle_copy(path, modules):
            owner = modules.get(path.rpartition(".")[0]) if path else None
            routers.append(FoundRouter(plain_name(path), module, owner, family))
    if not routers:
        raise _no_router(model, known)
    return routers


def plain_name(path: str) -> str:
    """Return a module's path without the names that wrappers put in.

    Example:
        >>> plain_name("base_model.model.model.layers.0.mlp.gate.base_layer")
        'model.layers.0.mlp.gate'
        >>> plain_name("_orig_mod.model.layers.1.mlp.router")
        'model.layers.1.mlp.router'
    """
    bare = _WRAPPERS.sub("", path).lstrip(".")
    return _PREFIXES.sub("", bare) or "router"


def _family_of(module: nn.Module, known: dict[str, RouterFamily]) -> RouterFamily | None:
    # Sharding replaces a module's class by a subclass of it, so look along the bases.
    return next((known[cls.__name__] for cls in type(module).__mro__ if cls.__name__ in known), None)


def _is_idle_copy(path: str, modules: dict[str, nn.Module]) -> bool:
    """Whether a router is a copy that PEFT keeps beside the one it trains and calls."""
    parts = path.split(".")
    for i, part in enumerate(parts):
        if part not in ("original_module", "modules_to_save"):
            continue
        wrapper = modules[".".join(parts[:i])]
        disabled = bool(getattr(wrapper, "disable_adapters", False))
        active = getattr(wrapper, "active_adapters", None) or []
        called = "original_module" if disabled or not active else f"modules_to_save.{active[0]}"
        if ".".join(parts[i : i + called.count(".") + 1]) != called:
            return True
    return False


def _no_router(model: nn.Module, known: dict[str, RouterFamily]) -> InputError:
    kinds = [type(module).__name__ for module in model.modules()]
    likely = sorted(name for name in kinds if re.search(r"rout(er|ing)|topk|gate$", name, re.IGNORECASE))
    names = sorted(known)
    return InputError(
        "balancing needs routers that it knows",
        expected=f"a module of a registered router class ({', '.join(names)})",
        got=f"{type(model).__name__} with {'the modules ' + ', '.join(likely[:5]) if likely else 'none'}",
        next_step="Pass families=[moe.RouterFamily(name=..., routers=('YourRouter',), gating='softmax')] "
        "to say how your router is read.",
    )

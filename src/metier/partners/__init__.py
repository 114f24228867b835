"""Specialist partners for cooperative agents: train, measure and distil populations."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import games as games
    from .animation import animate as animate, record_episode as record_episode
    from .evaluation import (
        Evaluation as Evaluation,
        HandshakeSplit as HandshakeSplit,
        evaluate as evaluate,
        handshake_split as handshake_split,
        sabotage_gap as sabotage_gap,
    )
    from .measures.behaviour import (
        BehaviourInformation as BehaviourInformation,
        behaviour_information as behaviour_information,
    )
    from .measures.capacity import capacity_weights as capacity_weights
    from .measures.cooperation import (
        Overfitness as Overfitness,
        SuccessRates as SuccessRates,
        overfitness as overfitness,
        success_rates as success_rates,
    )
    from .measures.logs import BehaviourCounts as BehaviourCounts, behaviour_counts as behaviour_counts
    from .measures.trajectories import (
        latent_log_prob as latent_log_prob,
        trajectory_information as trajectory_information,
    )
    from .pairing import CrossPlay as CrossPlay, cross_play as cross_play
    from .policies import (
        ConstantPolicy as ConstantPolicy,
        Policy as Policy,
        PurePolicy as PurePolicy,
        UniformPolicy as UniformPolicy,
    )
    from .samplers import (
        BanditSampler as BanditSampler,
        CapacitySampler as CapacitySampler,
        PartnerSampler as PartnerSampler,
        UniformSampler as UniformSampler,
    )
    from .training.distill import distill as distill
    from .training.fcp import train_fcp as train_fcp
    from .training.generalist import Generalist as Generalist, train_generalist as train_generalist
    from .training.guard import dispatch_in_turn as dispatch_in_turn
    from .training.mep import train_mep as train_mep
    from .training.population import Population as Population
    from .training.ppo import PPO as PPO
    from .training.progress import Progress as Progress
    from .training.self_play import train_self_play as train_self_play
    from .training.specialists import (
        oracle_specialists as oracle_specialists,
        train_specialists as train_specialists,
    )
    from .training.trajedi import train_trajedi as train_trajedi
    from .training.xp_min import train_xp_min as train_xp_min

_MODULES = {
    "animation": ("animate", "record_episode"),
    "pairing": ("CrossPlay", "cross_play"),
    "evaluation": ("Evaluation", "HandshakeSplit", "evaluate", "handshake_split", "sabotage_gap"),
    "measures.behaviour": ("BehaviourInformation", "behaviour_information"),
    "measures.capacity": ("capacity_weights",),
    "measures.cooperation": ("Overfitness", "SuccessRates", "overfitness", "success_rates"),
    "measures.logs": ("BehaviourCounts", "behaviour_counts"),
    "measures.trajectories": ("latent_log_prob", "trajectory_information"),
    "policies": ("ConstantPolicy", "Policy", "PurePolicy", "UniformPolicy"),
    "samplers": ("BanditSampler", "CapacitySampler", "PartnerSampler", "UniformSampler"),
    "training.distill": ("distill",),
    "training.fcp": ("train_fcp",),
    "training.generalist": ("Generalist", "train_generalist"),
    "training.guard": ("dispatch_in_turn",),
    "training.mep": ("train_mep",),
    "training.population": ("Population",),
    "training.ppo": ("PPO",),
    "training.progress": ("Progress",),
    "training.self_play": ("train_self_play",),
    "training.specialists": ("oracle_specialists", "train_specialists"),
    "training.trajedi": ("train_trajedi",),
    "training.xp_min": ("train_xp_min",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_PACKAGES = ("games",)

__all__ = sorted([*_HOME, *_PACKAGES])


def __getattr__(name: str) -> Any:
    """Load a name on first use: the measures must not need JAX."""
    if name in __all__:
        from metier.core.extras import naming_extras, require

        home = _HOME.get(name, name)
        # Check now for what the module imports only when it runs.
        for package in ("jax", "optax") if home.startswith("training.") else ():
            require(package)
        with naming_extras():
            module = importlib.import_module(f"metier.partners.{home}")
        return module if name in _PACKAGES else getattr(module, name)
    raise AttributeError(f"module 'metier.partners' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""One seed's pipeline: its populations, its oracle and its generalists, each trained once and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from metier import partners
from metier.core import derive_seed
from metier.partners.games import Cooking, LeverGame, specialists
from metier.partners.policies import ConstantPolicy

from .settings import SOURCES, PartnersConfig

ORACLE = "oracle"


class Pipeline:
    """Trains what is not on disk yet; a training that was interrupted goes on from its checkpoint.

    Args:
        config: the study's configuration.
        folder: where populations and unfinished trainings are kept.
        run_seed: the run's seed.
        seed: this pipeline's number.
    """

    def __init__(self, config: PartnersConfig, folder: Path, run_seed: int, seed: int) -> None:
        self.config, self.seed = config, seed
        self.folder = folder / f"seed-{seed}"
        self.root = derive_seed(run_seed, "partners", seed) % 2**31
        self.game = game_of(config)

    @property
    def strangers(self) -> list[Any]:
        """Held-out specialists: one per behaviour, scripted."""
        if self.config.game == "lever":
            return [ConstantPolicy(k) for k in range(self.game.n_levers)]
        return list(specialists(self.game, noise=self.config.noise))

    def seed_of(self, *labels: str) -> int:
        """Return the seed of one training or evaluation."""
        return int(derive_seed(self.root, *labels) % 2**31)

    def population(self, arm: str) -> Any:
        """Return an arm's population, trained or from disk."""
        return self._kept(arm, partners.Population, lambda folder: self._train(arm, folder, 1.0))

    def earlier(self, arm: str, share: float) -> Any:
        """Return an arm's members as they were after a share of their training."""
        name = f"{arm}-at-{100 * share:g}"
        return self._kept(name, partners.Population, lambda _: self._train(arm, self._training(arm), share))

    def mates(self, arm: str) -> Any:
        """Return whom the generalist of an arm trains with: its members, and their earlier selves if any."""
        # The earlier selves come first: the same training goes on from them.
        earlier = [self.earlier(arm, share) for share in self.config.checkpoints]
        population = self.population(arm)
        for selves in earlier:
            population = population.joined(selves)
        return population

    def generalist(self, name: str) -> Any:
        """Return the generalist that trained with an arm's population, or with the strangers (the oracle)."""
        c = self.config

        def train(folder: Path) -> Any:
            return partners.train_generalist(
                self.strangers if name == ORACLE else self.mates(name),
                self.game,
                steps=c.oracle_steps if name == ORACLE else c.generalist_steps,
                rng=self.seed_of("generalist", name),
                gru_units=c.generalist_units,
                hidden=c.hidden[:1],
                ppo=self._ppo(c.generalist_envs),
                folder=folder,
                reports=c.reports,
            )

        return self._kept(f"generalist-{name}", partners.Generalist, train)

    def _ppo(self, n_envs: int) -> Any:
        c = self.config
        return partners.PPO(
            n_envs=n_envs,
            n_steps=c.n_steps,
            epochs=c.epochs,
            minibatches=c.minibatches,
            learning_rate=c.learning_rate,
            entropy_weight=c.entropy_weight,
        )

    def _train(self, arm: str, folder: Path, share: float) -> Any:
        """Train an arm up to a share of its steps."""
        c, source = self.config, SOURCES[arm]
        options: dict[str, Any] = {
            "rng": self.seed_of(arm),
            "ppo": self._ppo(c.n_envs),
            "folder": folder,
            "reports": max(1, round(share * c.reports)),
        }
        if source is not None:
            method = "spectrl" if arm.endswith("spectrl") else "spectrl_dagger"
            return partners.distill(
                self.population(source),
                self.game,
                method=method,
                dagger_weight=c.dagger_weight,
                steps=round(share * c.distill_steps),
                **options,
            )
        options |= {"n_members": c.n_members, "hidden": c.hidden}
        if arm == "self-play":
            return partners.train_self_play(self.game, steps=round(share * c.self_play_steps), **options)
        return partners.train_xp_min(
            self.game,
            steps=round(share * c.generation_steps),
            xp_weight=c.xp_weight,
            xp_wait=c.xp_wait,
            mi_weight=c.mi_weight if "+mi" in arm else 0.0,
            mixed_play_weight=c.mixed_play_weight if "+mp" in arm else 0.0,
            n_pairs=c.n_pairs,
            **options,
        )

    def _training(self, name: str) -> Path:
        return self.folder / f"training-{name}"

    def _kept(self, name: str, kind: Any, make: Callable[[Path], Any]) -> Any:
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            return kind.load(path, self.game)
        made = make(self._training(name))
        made.save(path)
        return made


def game_of(config: PartnersConfig) -> Any:
    """Return the game that the configuration names."""
    if config.game == "lever":
        return LeverGame(n_levers=len(config.payoffs), n_stages=config.stages, payoffs=config.payoffs)
    return Cooking(layout=config.layout)

"""One seed's pipeline: populations, an oracle, generalists, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metier import partners
from metier.core import derive_seed
from metier.partners.games import Cooking, LeverGame, specialists
from metier.partners.policies import ConstantPolicy
from metier.partners.rollout import play

from .lever import exact_facts
from .study import SOURCES, PartnersConfig

CAPABLE = 0.5
"""A partner is capable when it succeeds with itself in more than half of its episodes (the paper's rule)."""


class Pipeline:
    """Trains what is not on disk yet, and measures it.

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
        self.game: Any = LeverGame() if config.game == "lever" else Cooking()

    @property
    def ppo(self) -> Any:
        """Settings of the partners' learning."""
        c = self.config
        return partners.PPO(
            n_envs=c.n_envs,
            n_steps=c.n_steps,
            epochs=c.epochs,
            minibatches=c.minibatches,
            learning_rate=c.learning_rate,
            entropy_weight=c.entropy_weight,
        )

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
        return self._kept(arm, partners.Population, lambda folder: self._train(arm, folder))

    def _train(self, arm: str, folder: Path) -> Any:
        c, source = self.config, SOURCES[arm]
        options: dict[str, Any] = {
            "rng": self.seed_of(arm),
            "ppo": self.ppo,
            "folder": folder,
            "reports": 1 if c.game == "lever" else 10,
        }
        if source is not None:
            method = "spectrl" if arm.endswith("spectrl") else "spectrl_dagger"
            return partners.distill(
                self.population(source),
                self.game,
                method=method,
                dagger_weight=c.dagger_weight,
                steps=c.distill_steps,
                **options,
            )
        if arm == "self-play":
            return partners.train_self_play(
                self.game, n_members=c.n_members, steps=c.self_play_steps, hidden=c.hidden, **options
            )
        return partners.train_xp_min(
            self.game,
            n_members=c.n_members,
            steps=c.generation_steps,
            xp_weight=c.xp_weight,
            mi_weight=c.mi_weight if "+mi" in arm else 0.0,
            mixed_play_weight=c.mixed_play_weight if "+mp" in arm else 0.0,
            hidden=c.hidden,
            **options,
        )

    def generalist(self, name: str) -> Any:
        """Return the generalist that trained with an arm's population, or with the strangers ("oracle")."""
        c = self.config

        def train(folder: Path) -> Any:
            mates = self.strangers if name == "oracle" else self.population(name)
            ppo = partners.PPO(
                n_envs=c.generalist_envs,
                n_steps=c.n_steps,
                epochs=c.epochs,
                minibatches=c.minibatches,
                learning_rate=c.learning_rate,
                entropy_weight=c.entropy_weight,
            )
            return partners.train_generalist(
                mates,
                self.game,
                steps=c.oracle_steps if name == "oracle" else c.generalist_steps,
                rng=self.seed_of("generalist", name),
                gru_units=c.generalist_units,
                hidden=c.hidden[:1],
                ppo=ppo,
                folder=folder,
                reports=1 if c.game == "lever" else 10,
            )

        return self._kept(f"generalist-{name}", partners.Generalist, train)

    def _kept(self, name: str, kind: Any, make: Callable[[Path], Any]) -> Any:
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            return kind.load(path, self.game)
        made = make(self.folder / f"training-{name}")
        made.save(path)
        return made

    def oracle_facts(self) -> dict[str, Any]:
        """Return what the oracle generalist achieves with the specialists it trained with."""
        return self._meets(self.generalist("oracle"), self.strangers, "oracle")

    def facts(self, arm: str) -> dict[str, Any]:
        """Return everything that is measured of one arm."""
        population = self.population(arm)
        own = self._self_play(population, arm)
        counts, failures = np.array(own["counts"]), np.array(own["failures"])
        shown = counts.sum(axis=1)
        capable = shown > CAPABLE * (shown + failures)
        covered = np.unique(counts[capable].argmax(axis=1)) if capable.any() else np.zeros(0)
        facts: dict[str, Any] = {
            **own,
            "capable": capable.tolist(),
            "covered": int(covered.size),
            "with_oracle": self._meets(self.generalist("oracle"), population, arm, "with oracle"),
            "with_strangers": self._meets(self.generalist(arm), self.strangers, arm, "with strangers"),
        }
        if capable.any():
            told = partners.behaviour_information(
                counts=counts[capable], failures=failures[capable], permutations=199
            )
            facts["told"] = {
                "diversity": told.diversity,
                "specialization": told.specialization,
                "information": told.information,
                "stderr": told.stderr,
            }
        if self.config.game == "lever":
            facts["exact"] = exact_facts(self.game, population)
        return facts

    def _self_play(self, population: Any, arm: str) -> dict[str, Any]:
        rng = np.random.default_rng(self.seed_of("self-play", arm))
        n = len(self.game.behaviours)
        played = [
            play(member, member, self.game, episodes=self.config.episodes, rng=rng) for member in population
        ]
        return {
            "counts": [episodes.counts(n).tolist() for episodes in played],
            "failures": [self.config.episodes - episodes.successes for episodes in played],
            "returns": [float(episodes.returns.mean()) for episodes in played],
        }

    def _meets(self, generalist: Any, mates: Any, *labels: str) -> dict[str, Any]:
        found = partners.evaluate(
            generalist, mates, self.game, episodes=self.config.episodes, rng=self.seed_of("meets", *labels)
        )
        rates = found.rates
        return {
            "successes": np.rint(rates.rates * rates.episodes).astype(int).tolist(),
            "returns": found.returns.tolist(),
            "robustness": rates.harmonic_mean,
            "stderr": rates.stderr,
        }

"""Training on CPU wants JAX to dispatch in turn, and that before the first computation of the process.

"Must n" in a test's docstring is statement n of the method note. Shown elsewhere: 13 also for students
(test_distillation.py, slow) and generalists; 21 by benchmarks/results/partners-self_play.json (four teams,
four seeds).
The issue's bad inputs (its 9): tables and empty populations in test_behaviour_information.py, partners that
never succeed in test_cooperation_measures.py and test_partners_study.py, sizes and illegal actions in
test_cross_play.py, checkpoints in test_self_play.py and test_partner_checkpoints.py.
"""

from __future__ import annotations

import jax

from metier.partners import dispatch_in_turn

dispatch_in_turn()


def pytest_configure(config):
    """Default tests compile much and compute little: they spare XLA its costly passes; slow ones do not."""
    if "not slow" in config.getoption("markexpr"):
        jax.config.update("jax_disable_most_optimizations", True)

"""What two families or more share: assignments, information, estimates, decisions, streams, checks, tasks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assignment import Assignment as Assignment
    from .checks import (
        finite_array as finite_array,
        label_codes as label_codes,
        non_negative as non_negative,
        one_of as one_of,
        open_fraction as open_fraction,
        positive_int as positive_int,
        simplex_rows as simplex_rows,
    )
    from .comparison import Comparison as Comparison, compare_paired as compare_paired
    from .decision import (
        Decision as Decision,
        specialize_or_fall_back as specialize_or_fall_back,
        units_needed as units_needed,
    )
    from .errors import InputError as InputError, MetierError as MetierError
    from .estimate import Estimate as Estimate
    from .extras import (
        MissingExtraError as MissingExtraError,
        install_command as install_command,
        naming_extras as naming_extras,
        require as require,
    )
    from .long_run import (
        ewc_variances as ewc_variances,
        hac_variances as hac_variances,
        long_run_variance_ewc as long_run_variance_ewc,
        long_run_variance_hac as long_run_variance_hac,
    )
    from .mutual_information import (
        InformationResult as InformationResult,
        information as information,
    )
    from .nats import entropy as entropy
    from .parallel import TaskError as TaskError, available_cpus as available_cpus, map_tasks as map_tasks
    from .rng import (
        as_generator as as_generator,
        derive as derive,
        derive_seed as derive_seed,
        seed_of as seed_of,
    )
    from .verdict import Reason as Reason, Verdict as Verdict, holm_levels as holm_levels, judge as judge

_MODULES = {
    "assignment": ("Assignment",),
    "checks": (
        "finite_array",
        "label_codes",
        "non_negative",
        "one_of",
        "open_fraction",
        "positive_int",
        "simplex_rows",
    ),
    "comparison": ("Comparison", "compare_paired"),
    "decision": ("Decision", "specialize_or_fall_back", "units_needed"),
    "errors": ("InputError", "MetierError"),
    "estimate": ("Estimate",),
    "extras": ("MissingExtraError", "install_command", "naming_extras", "require"),
    "verdict": ("Reason", "Verdict", "holm_levels", "judge"),
    "long_run": ("ewc_variances", "hac_variances", "long_run_variance_ewc", "long_run_variance_hac"),
    "mutual_information": ("InformationResult", "information"),
    "nats": ("entropy",),
    "parallel": ("TaskError", "available_cpus", "map_tasks"),
    "rng": ("as_generator", "derive", "derive_seed", "seed_of"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a name's module on first use: `metier.core.errors` must be importable without NumPy."""
    if name in _HOME:
        return getattr(importlib.import_module(f"metier.core.{_HOME[name]}"), name)
    raise AttributeError(f"module 'metier.core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

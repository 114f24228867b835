"""`python -m metier`: the command `metier`, where no script of that name is on the path."""

from metier.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

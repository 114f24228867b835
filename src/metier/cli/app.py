"""The command's frame: verbs, exit codes, one-line errors, and purity of `--json`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from metier.cli import answer, compare, data, doctor, exponents, forecast, iv, report, run, studies, tour
from metier.cli.answer import Answer, say

# Adding a verb: write cli/VERB.py with a function that returns an Answer, and name it here.
VERBS: dict[str, Callable[..., Answer]] = {
    "tour": tour.tour,
    "list": studies.list_studies,
    "run": run.run,
    "forecast": forecast.forecast,
    "exponents": exponents.exponents,
    "iv": iv.iv,
    "report": report.report,
    "compare": compare.compare,
    "doctor": doctor.doctor,
    "data": data.data,
}


def _print_version(wanted: bool) -> None:
    if wanted:
        from metier import __version__

        typer.echo(f"metier {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Divide the work among specialists, measure the division, prove that it pays.

    Start with: metier tour
    """


def build_app() -> typer.Typer:
    """Return the typer application with every verb."""
    app = typer.Typer(
        name="metier",
        add_completion=False,
        # Plain help loads no rich, and scripts that read it get no boxes.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, verb in VERBS.items():
        app.command(name)(verb)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 2 wrong use, 3 a check failed, 130 interrupted.

    Args:
        arguments: the words after `metier`; by default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        words = ["--help"]
    for stream in (sys.stdout, sys.stderr):
        # A minus sign must not break a terminal that has no such letter.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if "--json" not in words:
        document, code = _guarded(words)
        return code
    with answer.only_stderr() as stdout:
        document, code = _guarded(words)
        if document is not None:
            answer.write_document(stdout, document)
    return code


def _guarded(words: list[str]) -> tuple[dict[str, Any] | None, int]:
    """Run the verb; return its document (None for help) and exit code. Errors become one line."""
    try:
        result = build_app()(args=words, prog_name="metier", standalone_mode=False)
    except answer.RunInterruptedError as error:
        return _failed("interrupted", str(error), answer.INTERRUPTED, resume=error.resume)
    except (KeyboardInterrupt, typer.Abort):
        return _failed("interrupted", "interrupted", answer.INTERRUPTED)
    except Exception as error:
        return _explain(error)
    if isinstance(result, Answer):
        if not result.as_json and result.text:
            _print(result.text)
        return result.document, result.code
    if result == answer.INTERRUPTED:
        # Typer turns Ctrl-C into this code without a word.
        return _failed("interrupted", "interrupted", answer.INTERRUPTED)
    return None, result if isinstance(result, int) else answer.OK


def _explain(error: Exception) -> tuple[dict[str, Any], int]:
    """Say a user's error in one line; an error that is ours passes through with its traceback."""
    from metier.core.errors import InputError, MetierError

    if isinstance(error, InputError):
        parts = {name: getattr(error, name) for name in ("rule", "expected", "got", "next_step")}
        return _failed("input", str(error), answer.USAGE, **parts)
    if isinstance(error, MetierError):
        return _failed("missing", str(error), answer.USAGE)
    if hasattr(error, "format_message"):
        return _failed("usage", _usage_line(error), answer.USAGE)
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return _failed("system", f"the system refused: {error.strerror}{where}", answer.USAGE)
    raise error


def _usage_line(error: Any) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "metier"
    message = " ".join(error.format_message().split())
    return f"{path}: {message}{'' if message.endswith(('.', '?')) else '.'} See {path} --help."


def _failed(kind: str, message: str, code: int, **details: Any) -> tuple[dict[str, Any], int]:
    say(f"error: {message}" if code != answer.INTERRUPTED else message)
    return {"error": {"kind": kind, "message": message, **details}}, code


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader (`| head`) has left; keep Python from complaining again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""A command that was called wrongly: one line instead of a usage summary and a box."""

from collections.abc import Sequence
from typing import Any, cast

import typer
from typer.core import TyperGroup

from chargen_ort.terminal import report

# typer brings a copy of click or uses the one installed; either way this is its base
_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])


class OneLineGroup(TyperGroup):
    """Commands that answer a wrong option, value or argument with one line and status 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command that the arguments name, as `TyperGroup.main` does.

        Raises:
            SystemExit: in standalone mode, with the exit status.
        """
        try:
            result = super().main(
                args, prog_name, complete_var, False, windows_expand_args, **extra
            )
        except _UsageError as error:
            if not standalone_mode:
                raise
            result = _complain(error, prog_name or self.name or "")
        except typer.Abort:
            if not standalone_mode:
                raise
            result = 1
        if not standalone_mode:
            return result
        raise SystemExit(result if isinstance(result, int) else 0)


def _complain(error: Any, name: str) -> int:
    """Say what is wrong with a call of the program `name`; the exit status."""
    # where a command wants arguments and has none, its help has been written in place of a message
    message = " ".join(error.format_message().split()).rstrip(".")
    if message:
        path = error.ctx.command_path if error.ctx else name
        report(f"{name}: {message}; {path} --help lists what there is")
    return int(error.exit_code)

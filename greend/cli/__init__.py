"""The command `greend`: one file per subcommand, imported only when it is called for."""

from __future__ import annotations

import importlib
import os
import sys

import click

from greend import __version__
from greend.errors import GreendError

COMMANDS = {
    "status": "How much now, today and this month (also plain `greend`).",
    "history": "Energy over time, by component or by job.",
    "jobs": "All jobs, or one in detail.",
    "run": "Run a command as a job, within a budget, under a cap or by a deadline if you say so.",
    "attach": "Give a training loop that already runs resource levels.",
    "why": "Why a job's level is what it is, or was at any moment.",
    "what-if": "What another budget would have made of a job that ran.",
    "budget": "What jobs, days and months may use, and what is left: show, set, clear.",
    "sim": "Rehearse limits on a job that is made up, before they touch one.",
    "policy": "Rules for jobs at times of day: list, show, set, test.",
    "hold": "Keep a job at a level or below for a while.",
    "doctor": "What is measured, what is modelled, why, and the fix.",
    "daemon": "Run the daemon in the foreground.",
    "actuator": "Run the process that turns device limits for the daemon, as root.",
    "help": "Topics: exit-codes, environment.",
}


class LazyGroup(click.Group):
    """Finds a subcommand in the file of its name, so that `greend --version` imports next to nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"greend.cli.{cmd_name.replace('-', '')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is named first; of an unknown one, say which comes near."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from greend.units import nearest

            hint = nearest(args[0], COMMANDS) or f"; there are {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command is called {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(
    cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="greend")
@click.pass_context
def root(ctx: click.Context) -> None:
    """From watts to weights: what this machine uses, whose it is, and jobs held to a budget."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(root.get_command(ctx, "status"))  # type: ignore[arg-type]


def main(arguments: list[str] | None = None) -> None:
    """Run the command and leave with its exit code; an error is one line on stderr."""
    try:
        code = root.main(arguments, prog_name="greend", standalone_mode=False) or 0
        sys.stdout.flush()
        sys.exit(code)
    except GreendError as error:
        print(f"greend: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        print(f"greend: {error.format_message()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has seen enough (`greend help exit-codes | head -1`). Short output is
        # still in the buffer here, and Python would complain when it flushes it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)

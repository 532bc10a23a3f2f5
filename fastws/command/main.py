"""`fastws`: the group of subcommands, each of which is imported when it is called."""

import importlib
import sys

try:
    import click
except ImportError:
    sys.exit("fastws: the command line needs click: pip install 'fastws-server[server]'")

__all__ = ["main"]

# What each module beside this one does; its `command` is the rest.
COMMANDS = {
    "serve": "Run the server that fastws.toml describes, or one of your own.",
    "demo": "Run a chat, to have a look.",
    "init": "Write a fastws.toml to begin with.",
    "check": "Tell what is wrong with a configuration.",
    "config": "Show the configuration, and where each value comes from.",
    "explain": "Tell which rule decides on a channel, and why.",
    "token": "Print a token, or say what is in one.",
    "publish": "Send a message to a channel.",
    "tail": "Print what a channel gets.",
    "top": "Show what a running server does.",
    "refusals": "Show whom a running server has refused, and why.",
    "selftest": "Try whether fastws works on this machine.",
    "version": "Show the version.",
}


class Commands(click.Group):
    """The subcommands, by their modules' names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"fastws.command.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, help="Show the version.")
@click.pass_context
def cli(context: click.Context, version: bool) -> None:
    """A fast WebSocket server: channels, users and broadcasts."""
    if version:
        from .version import tell

        tell()
        context.exit()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main() -> None:
    """Run the command line and exit: with status 1 if the address is taken, 2 for any other error."""
    try:
        sys.exit(cli.main(prog_name="fastws", standalone_mode=False))
    except click.ClickException as error:
        click.echo(f"fastws: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)  # Ctrl-C, as shells say it

"""How a command ends that cannot do what it was asked to."""

import click

__all__ = ["CannotListen", "Failure"]


class Failure(click.ClickException):
    """Ends the command with a sentence, or several, on stderr."""

    exit_code = 2


class CannotListen(Failure):
    exit_code = 1

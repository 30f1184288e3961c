"""`sendback completion`: the script with which a shell completes commands and options."""

from enum import Enum
from typing import Annotated

import typer

# The variable by which a shell's script asks for completions.
VARIABLE = "_SENDBACK_COMPLETE"


class Shell(Enum):
    """The shells that can complete."""

    BASH = "bash"
    FISH = "fish"
    ZSH = "zsh"


def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Print the script that completes commands and options in a shell.

    bash: sendback completion bash > ~/.local/share/bash-completion/completions/sendback

    zsh: sendback completion zsh > a file _sendback in a folder of $fpath

    fish: sendback completion fish > ~/.config/fish/completions/sendback.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name="sendback", complete_var=VARIABLE, shell=shell.value)
    typer.echo(script)  # as it is: its characters mean something to the shell


def prepare() -> None:
    """Let the command answer a shell's script, if one asks."""
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()

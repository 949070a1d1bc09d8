"""`bsm completion`: completion of commands, options and file names in a shell."""

from __future__ import annotations

import click


@click.command(
    help="""Print the script with which a shell completes bsm.

    \b
    For this session:
      source <(bsm completion bash)
      source <(bsm completion zsh)      # after compinit
      bsm completion fish | source

    \b
    For all sessions:
      bsm completion bash >> ~/.bash_completion
      bsm completion zsh >> ~/.zshrc
      bsm completion fish > ~/.config/fish/completions/bsm.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Runs `bsm completion`."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "bsm", "_BSM_COMPLETE").source())

"""Commands that people guess, and the command that does what they mean."""

import shlex
from typing import Any

from typer.core import TyperGroup

from hpo.errors import UsageError

GUESSED = {
    "run": "launch",
    "start": "launch",
    "search": "launch",
    "tune": "launch",
    "optimize": "launch",
    "sweep": "launch",
    "agent": "worker",
    "continue": "launch",
    "restart": "launch",
    "create": "init",
    "new": "init",
    "convert": "init",
    "import-sweep": "init",
    "ls": "status",
    "experiments": "status",
    "studies": "status",
    "ps": "status",
    "watch": "status",
    "info": "status",
    "progress": "status",
    "log": "logs",
    "tail": "logs",
    "best": "export",
    "results": "compare",
    "report": "compare",
    "ui": "dashboard",
    "web": "dashboard",
    "server": "dashboard",
    "serve": "dashboard",
    "rm": "delete",
    "remove": "delete",
    "networks": "list",
    "samplers": "list",
    "check": "doctor",
    "version": "doctor",
    "evaluate": "train",
    "reproduce": "train",
    "kill": "stop",
    "cancel": "stop",
    "abort": "stop",
    "add": "extend",
}
"""A guessed name -> the command. Some are commands of their own in one version and not in another."""

MEANT = {
    "launch": "launch STUDY_FILE starts an experiment and goes on with one that was interrupted",
    "init": "init writes a first study file; init --from FILE makes one of another tool's file",
    "status": "status shows all experiments, or one of them",
}


class Commands(TyperGroup):
    """The commands; one that does not exist but is guessed ends with the line that does what was meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As the parent's; raises UsageError with the meant command and the same arguments for a guessed name."""
        name = args[0]
        if self.get_command(ctx, name) is None and (meant := GUESSED.get(name, "")) in self.commands:
            rest = args[1:]
            if name in ("continue", "restart") and rest and not rest[0].endswith((".toml", ".json")):
                # An experiment's name, where launch takes its file.
                rest = ["STUDY_FILE", *rest[1:]]
            more = f"\nhpo {MEANT[meant]}" if meant in MEANT else ""
            line = shlex.join(["hpo", str(meant), *rest])
            raise UsageError(f"there is no command {name!r}; what you mean is probably\n  {line}{more}")
        return super().resolve_command(ctx, args)

"""Ways to start the same worker, in one table: in this process, in processes of this machine, on a Ray cluster."""

from hpo.launchers.table import LAUNCHERS, LaunchOptions, check_launch, launch

__all__ = ["LAUNCHERS", "LaunchOptions", "check_launch", "launch"]

"""Ways to start the same worker, in one table: in this process, in processes of this machine, on a Ray cluster."""

from hpo.launchers.options import LaunchOptions
from hpo.launchers.registry import LAUNCHERS, check_launch, launch

__all__ = ["LAUNCHERS", "LaunchOptions", "check_launch", "launch"]

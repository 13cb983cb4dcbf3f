"""The table of launchers, each with its options: what the command line offers and ``hpo.launch`` takes.

To add a launcher: a class of options and a row here, and a module with ``run``. Nothing heavy is imported before a
launcher runs, because ``hpo launch --help`` lists all options.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from hpo.errors import UsageError, near_miss
from hpo.settings import Settings

if TYPE_CHECKING:
    from hpo.experiment.experiment import Experiment

Gpus = Literal["all", "none"] | tuple[str, ...]
"""All GPUs that can be used, none of them, or those with these names (indices or UUIDs)."""


def text(help_text: str, shown_default: str | None = None) -> dict[str, str | None]:
    """The metadata of an option: its text for ``--help``."""
    return {"help": help_text, "shown_default": shown_default}


GPUS = text("GPUs to use, such as 0,1 or UUIDs; 'all'; 'none' for the CPU.", "all")


LEAST = {"workers": 1, "max_restarts": 0, "per_gpu": 1, "gpus_per_worker": 0, "cpus_per_worker": 1}


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Options of every launcher."""

    workers: int | None = field(default=None, metadata=text("Worker processes.", "one a GPU, or a core"))
    max_restarts: int = field(
        default=10, metadata=text("Workers that are replaced in a row without progress before the launch gives up.")
    )

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name, None)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
        if hasattr(self, "gpus"):
            object.__setattr__(self, "gpus", parse_gpus(self.gpus))


@dataclass(frozen=True, kw_only=True)
class LocalOptions(LaunchOptions):
    """Options of the launcher ``local``."""

    gpus: Gpus = field(default="all", metadata=GPUS)
    per_gpu: int = field(default=1, metadata=text("Workers that share one GPU."))


@dataclass(frozen=True, kw_only=True)
class InlineOptions(LaunchOptions):
    """Options of the launcher ``inline``, which has one worker on one device."""

    gpus: Gpus = field(default="all", metadata=GPUS)


@dataclass(frozen=True, kw_only=True)
class RayOptions(LaunchOptions):
    """Options of the launcher ``ray``."""

    gpus: Gpus = field(default="all", metadata=GPUS)
    per_gpu: int = field(default=1, metadata=text("Workers that share one GPU."))
    ray_address: str | None = field(
        default=None, metadata=text("Ray cluster, such as ray://host:10001.", "RAY_ADDRESS, or local")
    )


@dataclass(frozen=True, kw_only=True)
class SlurmOptions(LaunchOptions):
    """Options of the launcher ``slurm``."""

    gpus: Gpus = field(default="all", metadata=GPUS)
    gpus_per_worker: int | None = field(default=None, metadata=text("GPUs of each Slurm job.", "none"))
    cpus_per_worker: int | None = field(default=None, metadata=text("Cores of each Slurm job.", "Slurm's"))
    partition: str | None = field(default=None, metadata=text("Slurm partition.", "Slurm's"))
    time: str | None = field(default=None, metadata=text("Time limit of a Slurm job, such as 2:00:00.", "Slurm's"))
    qos: str | None = field(default=None, metadata=text("Slurm quality of service.", "Slurm's"))
    sbatch: str | None = field(default=None, metadata=text("Further options of sbatch, in one text.", "none"))


class Progress(Protocol):
    """What a launcher reports while it runs."""

    def update(self, status: dict[str, Any]) -> None:
        """Takes a new status, as :func:`hpo.experiment.status.snapshot` returns it."""

    def line(self, text: str) -> None:
        """Takes an event: one line, or a line with the end of a log below it."""


Launcher = Callable[["Experiment", Settings, Any, Progress], None]


@dataclass(frozen=True)
class LauncherEntry:
    """A row: ``module`` has a function ``run(experiment, settings, options, progress)``.

    It may have a function ``check(settings, options)``, which raises UsageError before anything is written.
    """

    name: str
    module: str
    options: type[LaunchOptions]
    description: str


LAUNCHERS = {
    entry.name: entry
    for entry in (
        LauncherEntry(
            "local", "hpo.launchers.local", LocalOptions, "worker processes on this machine, replaced when they die"
        ),
        LauncherEntry("inline", "hpo.launchers.inline", InlineOptions, "one worker in this process, for a debugger"),
        LauncherEntry(
            "ray",
            "hpo.launchers.ray",
            RayOptions,
            "workers as tasks on a Ray cluster (pip install 'hpo-service[ray]')",
        ),
        LauncherEntry("slurm", "hpo.launchers.slurm", SlurmOptions, "workers as the tasks of Slurm job arrays"),
    )
}


def all_options() -> dict[str, dataclasses.Field[Any]]:
    """The options of all launchers by name; one name means the same in each of them."""
    return {own.name: own for entry in LAUNCHERS.values() for own in dataclasses.fields(entry.options)}


def launcher_entry(name: str) -> LauncherEntry:
    """The row of that name. Raises UsageError, with the near miss, if there is none."""
    if name not in LAUNCHERS:
        raise UsageError(f"--launcher must be one of {', '.join(LAUNCHERS)}, not {name!r}{near_miss(name, LAUNCHERS)}")
    return LAUNCHERS[name]


def make_options(launcher: str, **given: Any) -> LaunchOptions:
    """The options of a launcher; values that are None are the defaults.

    Raises:
        UsageError: for an unknown launcher, an option that it does not have, or a value out of range.
    """
    entry = launcher_entry(launcher)
    own = _names(entry)
    for name in given.keys() - own:
        owners = [other.name for other in LAUNCHERS.values() if name in _names(other)]
        where = f"; it is one of {', '.join(owners)}" if owners else near_miss(name, own)
        raise UsageError(f"the launcher {launcher} has no option {name}{where}")
    return entry.options(**{name: value for name, value in given.items() if value is not None})


def too_few_gpus(gpus_per_worker: int, gpus_per_trial: int) -> str:
    """Why a worker cannot train a trial of several GPUs."""
    return (
        f"--gpus-per-worker {gpus_per_worker} is less than the {gpus_per_trial} GPUs of a trial (gpus_per_trial): "
        f"leave it out, or give {gpus_per_trial} or more; 0 is for a machine without GPUs"
    )


def _names(entry: LauncherEntry) -> set[str]:
    return {own.name for own in dataclasses.fields(entry.options)}


def parse_gpus(value: object) -> Gpus:
    """``all``, ``none``, or names from a text such as ``0,1``, from one number or from a sequence of names.

    Raises:
        UsageError: for an empty text or sequence, or a name twice.
    """
    if value in ("all", "none"):
        return "all" if value == "all" else "none"
    names: tuple[str, ...] = ()
    if isinstance(value, str):
        names = tuple(name.strip() for name in value.split(","))
    elif isinstance(value, (list, tuple, range)):
        names = tuple(str(name).strip() for name in value)
    elif isinstance(value, int) and not isinstance(value, bool):
        names = (str(value),)
    if not names or not all(names):
        raise UsageError(
            f"--gpus is {value!r}: give the numbers or UUIDs of GPUs, separated by commas, 'all', or 'none' for the CPU"
        )
    if len(set(names)) < len(names):
        raise UsageError(f"--gpus names a GPU twice: {','.join(names)}; --per-gpu 2 starts two workers on each")
    return names

"""The keys of a study file, each declared once. To add a key, add a field to :class:`StudyFileKeys`.

What follows from them for an experiment is in :mod:`hpo.studyfile.model`. Reading a file that a person wrote, with all
its mistakes at once, stands above both in :mod:`hpo.studyfile.parse`.
"""

from typing import Annotated, Any, Literal

import pydantic

from hpo.search.bounds import Bound
from hpo.search.pruner_registry import PrunerSpec
from hpo.search.sampler_registry import SAMPLERS, SamplerSpec
from hpo.search.space import Space
from hpo.studyfile.budget import Budget
from hpo.studyfile.stored import Pruner, Sampler, SearchSpace
from hpo.trainers.program_command import ArgumentStyle
from hpo.trainers.protocol import Direction

CHANGES_NO_TRIAL = object()
"""Marks keys that may change when an existing experiment is relaunched."""

KEPT_BY_LAUNCH = object()
"""Marks what a launch adds to the record: no key that a person writes."""


ONE_IS_NONE = pydantic.AfterValidator(lambda number: None if number == 1 else number)
"""One is what a file without the key has, and is recorded alike."""


class StudyFileKeys(pydantic.BaseModel):
    """The keys of a study file. The docstring of a key is its line in the reference."""

    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
    )

    name: str
    """Name of the experiment; its studies are called ``<name>/<sampler's label>/<repeat>``."""
    trainer: str
    """Name of the trainer."""
    metric: str
    """The metric that is optimized, or a list of two: then the Pareto front of both is searched, without pruning."""
    direction: Direction
    """``"minimize"`` or ``"maximize"``, a list of two for two metrics; by default what the trainer says, or what the
    metric's name says."""
    second_metric: str | None = None
    """The second of two metrics, in a stored study file; ``metric = [first, second]`` gives it."""
    second_direction: Direction | None = None
    """Its direction, in a stored study file; ``direction = [first, second]`` gives it."""
    value: Literal["last", "best"] = "last"
    """Which epoch's metric is a trial's value: that of the last epoch or the best one."""
    samplers: Annotated[list[Sampler], pydantic.Field(min_length=1)] = pydantic.Field(
        default_factory=lambda: [SamplerSpec("auto", "auto", SAMPLERS["auto"].options())]
    )
    """Names of samplers, or tables with a name, options and a label; each searches by itself. ``["auto"]`` if the file
    does not say."""
    repeats: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 1
    """Number of independent searches with each sampler."""
    budget: Budget
    """What each search may spend: ``trials`` or ``epochs``, ``hours``, ``seconds`` or ``gpu_hours``, or one of each;
    ``{ trials = 1 }`` if nothing is searched."""
    pruner: Pruner = pydantic.Field(default_factory=PrunerSpec)
    """Name of a pruner, or a table with a name and options."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**63)] = 0
    """All draws and all trainings derive their seeds from it."""
    target: Annotated[float | None, CHANGES_NO_TRIAL] = None
    """Value of the metric to be reached; comparisons show when it was reached."""
    stop_at_target: Annotated[bool, CHANGES_NO_TRIAL] = False
    """Whether a search begins no further trial once a complete one has reached the target."""
    audit: bool = False
    """Whether some pruned trials run to their end, to see what pruning costs."""
    slots: Annotated[Annotated[int, pydantic.Field(ge=1, le=100_000)] | None, CHANGES_NO_TRIAL] = None
    """Number of trials that a worker trains at once; by default the trainer chooses."""
    epoch_timeout_seconds: Annotated[Annotated[float, pydantic.Field(gt=0)] | None, CHANGES_NO_TRIAL] = None
    """Longest time of an epoch, after which its worker is replaced."""
    trial_timeout_seconds: Annotated[Annotated[float, pydantic.Field(gt=0)] | None, CHANGES_NO_TRIAL] = None
    """Longest time of a trial in its slot: at the end of the epoch in which it has passed, the trial is complete with
    what it has. A trial that ends no epoch for twice that time ends with its worker, as after a hung epoch."""
    checkpoint_seconds: Annotated[Annotated[float, pydantic.Field(ge=0)] | None, CHANGES_NO_TRIAL] = None
    """Least time between two checkpoints of a trial on disk; 0: one after each epoch. By default so much that they
    cost 2 % of the training of the image classifier, and 0 for every other trainer. A trial that is given back always
    leaves one of its last epoch."""
    max_retries: Annotated[int, pydantic.Field(ge=0, le=1_000), CHANGES_NO_TRIAL] = 3
    """How often a trial is tried again after its worker died or its trainer failed."""
    gpus_per_trial: Annotated[int, pydantic.Field(ge=1, le=64)] = 1
    """Number of GPUs of a trial, ``run.devices``; without GPUs, of processes that share the worker's cores."""
    seeds_per_trial: Annotated[Annotated[int, pydantic.Field(ge=1, le=100)] | None, ONE_IS_NONE] = None
    """Number of trainings of a trial, each with a seed of its own, whose mean is the trial's value; 1 if the file does
    not say. An epoch of a trial costs so many epochs."""
    keep_folders: Annotated[Literal["best", "all", "none"], CHANGES_NO_TRIAL] = "best"
    """Which trials' folders stay after they have ended."""
    seed_libraries: bool = True
    """Whether random, NumPy and torch are seeded from a trial's seed before its code starts."""
    work_in: Literal["launch", "trial"] = "launch"
    """The current folder of a trial: where the experiment was launched, or the trial's own folder."""
    command: list[str] | None = None
    """The program of ``trainer = "program"`` with its arguments, a list or text; ``{name}`` stands for a parameter."""
    args: ArgumentStyle | None = None
    """How a program gets the parameters that its command does not name: ``--name=value``, ``name=value`` or not."""
    metrics: dict[str, str] | None = None
    """Regular expressions with a group that find metrics in the output of a program."""
    stop_grace_seconds: Annotated[Annotated[float, pydantic.Field(ge=0, le=3600)] | None, CHANGES_NO_TRIAL] = None
    """How long a program may take to end after SIGTERM; 10 by default."""
    fixed: dict[str, Any] = {}
    """Values of the configuration that are not searched, by their names; what grid search takes for parameters without
    grid values."""
    forbidden: list[dict[str, Any]] = []
    """Combinations that are never drawn and left out of grids: tables of parameter = value, list of values or
    ``{ low, high }``; all of a table's conditions must hold."""
    constraints: dict[str, Bound] | None = None
    """Bounds on metrics that are known after a trial only, such as ``num_parameters = { at_most = 100000 }``; what
    violates one is nobody's best, and samplers avoid it."""
    space: SearchSpace = pydantic.Field(default_factory=lambda: Space({}))
    """The parameters that are searched."""
    try_first: list[dict[str, Any]] = []
    """Configurations, or parts of them, of the first trials of each search but grid search."""
    like: list[str] | None = None
    """Earlier experiments with the same trainer, metric and direction, whose best configurations are tried after those
    of ``try_first``, translated to this space."""
    portfolio: bool | None = None
    """Whether the first trials, after those of ``try_first`` and ``like``, have the trainer's portfolio: configurations
    that are good on average over other data. The classifier has one."""
    starts: Annotated[list[dict[str, Any]] | None, KEPT_BY_LAUNCH] = None
    """What the launch that made the experiment took from elsewhere, see :mod:`hpo.experiment.starts`."""
    provenance: dict[str, Any] = {}
    """Where an exported configuration comes from."""

    def to_json(self) -> dict[str, Any]:
        """The file with every default written out, as JSON can hold it: what the database keeps."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def own_keys(cls) -> list[str]:
        """The keys that a person may write."""
        return [name for name, field in cls.model_fields.items() if KEPT_BY_LAUNCH not in field.metadata]

    @classmethod
    def keys_that_change_no_trial(cls) -> list[str]:
        return [name for name, field in cls.model_fields.items() if CHANGES_NO_TRIAL in field.metadata]

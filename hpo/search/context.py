"""What the rows of samplers and pruners have in common: options, the context they are built in, unmet needs."""

from dataclasses import dataclass
from typing import Any

import pydantic

from hpo.search.space import Space


class Options(pydantic.BaseModel):
    """Options of a sampler or pruner: unknown ones are refused, nothing is converted."""

    # A process uses one or two of the twenty models: the others' validators are never built.
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)

    def as_table(self) -> dict[str, Any]:
        """The options as a study file spells them; those that are None are left out."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


@dataclass(frozen=True)
class Unmet:
    """Something that a sampler or pruner needs and the study file does not have.

    Attributes:
        text: what is wrong and what was expected.
        path: the TOML path that is to be changed: from the top if it begins with ``space``, else an option of the
            sampler or pruner; empty for the sampler or pruner as a whole.
    """

    text: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchContext:
    """The facts about an experiment that samplers and pruners are built from; see :meth:`StudyFile.search_context`.

    Attributes:
        space: the search space.
        seed: the study file's seed.
        experiment: the experiment's name; a study is named ``<experiment>/<label>/<repeat>``.
        num_first: number of configurations in ``try_first``.
        max_epochs: the most epochs that a trial can have; None if the trainer's configuration has no field ``epochs``.
        prunes: whether the study's pruner may prune a trial.
        num_objectives: 1, or 2 for a search of a Pareto front.
    """

    space: Space
    seed: int = 0
    experiment: str = ""
    num_first: int = 0
    max_epochs: int | None = None
    prunes: bool = False
    num_objectives: int = 1

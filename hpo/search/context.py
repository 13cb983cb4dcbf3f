"""What the builders of samplers and pruners need of a study file; :meth:`StudyFile.search_context` makes it."""

from dataclasses import dataclass

from hpo.search.space import Space


@dataclass(frozen=True)
class SearchContext:
    """The facts about an experiment that samplers and pruners depend on.

    Attributes:
        space: the search space.
        seed: the study file's seed.
        experiment: the experiment's name; a study is named ``<experiment>/<label>/<repeat>``.
        num_first: number of configurations in ``try_first``.
        max_epochs: the most epochs that a trial can have; None if the trainer's configuration has no field ``epochs``.
    """

    space: Space
    seed: int = 0
    experiment: str = ""
    num_first: int = 0
    max_epochs: int | None = None

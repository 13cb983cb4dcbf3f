"""The key ``budget`` of a study file: what each search may spend."""

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from hpo.studyfile.validation import shown

Count = Annotated[int, pydantic.Field(ge=1, le=10**9)]
Time = Annotated[float, pydantic.Field(gt=0, le=10**9)]


class Budget(pydantic.BaseModel):
    """What a study may spend: a number of trials or of epochs, a time, or a number within a time."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)

    trials: Count | None = None
    """Number of finished trials."""
    epochs: Count | None = None
    """Number of epochs, over all trials."""
    hours: Time | None = None
    """Hours for which trials of a search may run, alone or beside trials or epochs."""
    seconds: Time | None = None
    """The same in seconds."""
    gpu_hours: Time | None = None
    """Hours of the GPUs that its trials use, in place of hours of the clock; without GPUs, of workers."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _one_of_a_kind(cls, table: Any) -> Any:
        if isinstance(table, Mapping) and not table.keys() - cls.model_fields.keys():
            given = {name for name, value in table.items() if value is not None}
            if not given or given >= {"trials", "epochs"} or len(given & {"hours", "seconds", "gpu_hours"}) > 1:
                expected = "either trials or epochs, one of hours, seconds and gpu_hours, or one of each"
                raise ValueError(f"{shown(table)} is refused; expected {expected}")
        return table

    @property
    def time(self) -> float | None:
        """Seconds, or seconds of GPUs if :attr:`counts_gpus`, that a search may take; None if time ends nothing."""
        hours = self.hours or self.gpu_hours
        return self.seconds if hours is None else 3600 * hours

    @property
    def counts_gpus(self) -> bool:
        return self.gpu_hours is not None

    def of_trials(self, trials: int) -> "Budget":
        """So many trials within the same time."""
        return self.model_copy(update={"trials": trials, "epochs": None})

    def times(self, factor: int) -> "Budget":
        return Budget(**{name: value * factor for name, value in self.as_dict().items()})

    def includes(self, other: "Budget") -> bool:
        """Whether this budget is of the same kind and at least as large; none in time is more than any."""
        mine, theirs = (budget.model_dump(include={"trials", "epochs"}, exclude_none=True) for budget in (self, other))
        return (
            mine.keys() == theirs.keys()
            and all(value >= theirs[name] for name, value in mine.items())
            and (self.time is None or (other.time is not None and self.time >= other.time))
            and (self.time is None or self.counts_gpus == other.counts_gpus)
        )

    def as_dict(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)

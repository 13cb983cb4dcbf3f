"""What an exported file says of where its configuration comes from, as far as ``hpo train`` reads it."""

from typing import Annotated, Any

import pydantic


class _Table(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class TrainedOn(_Table):
    """What the last digits depend on; ``hpo train`` takes as many threads, where there are so many."""

    threads: Annotated[int, pydantic.Field(ge=1)] | None = None
    slots: Annotated[int, pydantic.Field(ge=1)] | None = None


class Provenance(_Table):
    """The table ``[provenance]``; a person may leave out what is not known, and add to it."""

    study: str | None = None
    value: float | None = None
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**63)] | None = None
    trained_on: TrainedOn | None = None


def without_nulls(table: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: what is not known is left out, and so it is where JSON gives null."""
    return {
        key: without_nulls(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }

"""How the model of a study file stores samplers, a pruner and a space: as the tables that a file has."""

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from hpo.search.forbidden import Forbidden
from hpo.search.pruner_registry import PRUNERS, PrunerSpec
from hpo.search.sampler_registry import SAMPLERS, SamplerSpec
from hpo.search.space import Space
from hpo.studyfile import configuration
from hpo.studyfile.config_fields import ConfigFields, config_fields
from hpo.studyfile.validation import shown
from hpo.trainers.registry import TRAINERS, TrainerEntry


def _sampler(table: Any) -> Any:
    if not isinstance(table, Mapping):
        return table
    name, options = table["name"], {key: value for key, value in table.items() if key not in ("name", "label")}
    if name not in SAMPLERS:
        raise ValueError(f"there is no sampler {name!r} in this version")
    return SamplerSpec(name, table.get("label", name), SAMPLERS[name].options.model_validate(options))


def _pruner(table: Any) -> Any:
    if not isinstance(table, Mapping):
        return table
    name, options = table["name"], {key: value for key, value in table.items() if key != "name"}
    if name not in PRUNERS:
        raise ValueError(f"there is no pruner {name!r} in this version")
    if isinstance(options.get("wrapped"), Mapping):
        options["wrapped"] = _pruner(options["wrapped"])
    return PrunerSpec(name, PRUNERS[name].options.model_validate(options))


def _space(table: Any, info: pydantic.ValidationInfo) -> Any:
    """A stored space with the values that its parameters have where they are not sampled."""
    if not isinstance(table, Mapping | Space):
        raise ValueError(f"{shown(table)} is refused; expected a table of parameters")
    parameters = table.parameters if isinstance(table, Space) else Space.from_table(table).parameters
    fields = fields_of_trainer(TRAINERS.get(info.data.get("trainer", "")))
    forbidden = tuple(Forbidden.from_table(table) for table in info.data.get("forbidden", ()))
    return Space(parameters, configuration.base_values(fields, parameters, info.data.get("fixed", {})), forbidden)


def _table(value: Any) -> Any:
    return value.as_table()


def fields_of_trainer(entry: TrainerEntry | None) -> ConfigFields:
    return config_fields(None if entry is None else entry.config)


Sampler = Annotated[
    pydantic.InstanceOf[SamplerSpec], pydantic.BeforeValidator(_sampler), pydantic.PlainSerializer(_table)
]
Pruner = Annotated[pydantic.InstanceOf[PrunerSpec], pydantic.BeforeValidator(_pruner), pydantic.PlainSerializer(_table)]
SearchSpace = Annotated[pydantic.InstanceOf[Space], pydantic.BeforeValidator(_space), pydantic.PlainSerializer(_table)]

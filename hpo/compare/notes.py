"""Sentences about an experiment's record that a reader of its comparison must not miss."""

from collections.abc import Mapping, Sequence

from hpo.compare.pairs import Finals
from hpo.compare.records import StudyRecord
from hpo.experiment.trainer_version import short_source
from hpo.search.bounds import listed


def standing_notes(finals: Finals, repeats: Mapping[str, int], finished: bool) -> list[str]:
    """What the final values lack: samplers without any, an end, a second repeat (``repeats``: how many by sampler)."""
    notes = []
    empty = [name for name, values in finals.items() if not values]
    if len(empty) == len(finals):
        notes.append("No trial has finished yet: there is nothing to compare so far.")
    elif empty:
        notes.append(f"No finished trial yet: {', '.join(empty)}.")
    if not finished:
        notes.append("The experiment is not finished: these numbers will change.")
    if len(repeats) > 1 and all(number == 1 for number in repeats.values()):
        notes.append(
            "One repeat only: curves have no intervals and a difference between samplers may be chance. "
            "hpo launch STUDY_FILE --repeats 5 adds repeats to this experiment."
        )
    return notes


def _version_notes(studies: Sequence[StudyRecord]) -> list[str]:
    """Which trials were trained by which version of the trainer's code, if there are several."""
    numbers: dict[str, dict[str, list[int]]] = {}
    for study in studies:
        for trial in study.trials:
            if trial.source is not None:
                numbers.setdefault(trial.source, {}).setdefault(study.name, []).append(trial.number)
    if len(numbers) < 2:
        return []
    parts = [
        f"{short_source(source)} trained {sum(map(len, of.values()))} trials ("
        + "; ".join(f"{name}: {_ranges(found)}" for name, found in of.items())
        + ")"
        for source, of in numbers.items()
    ]
    return [f"The trials come from {len(numbers)} versions of the trainer's code: {', '.join(parts)}."]


def _start_notes(studies: Sequence[StudyRecord]) -> list[str]:
    """Which samplers tried configurations of earlier experiments first, and whether one of them is the best."""
    sources: dict[str, None] = {}
    samplers: dict[str, None] = {}
    best_of: list[str] = []
    for study in studies:
        for trial in study.last_attempts():
            if trial.start_from:
                sources[str(trial.start_from.get("experiment", "the portfolio"))] = None
                samplers[study.sampler] = None
        if (best := study.best()) is not None and best.start_from:
            best_of.append(f"{study.sampler}/{study.repeat}")
    notes = _knowledge_notes(studies)
    if not sources:
        return notes
    found = f"; one of them is the best of {', '.join(best_of)}" if best_of else "; none of them is the best of a study"
    return [
        *notes,
        f"The first trials of {', '.join(samplers)} have configurations of {', '.join(sources)}, counted in the budget"
        f"{found}.",
    ]


def _knowledge_notes(studies: Sequence[StudyRecord]) -> list[str]:
    """Which samplers knew imported trials, which are no results here."""
    numbers: dict[str, int] = {}
    for study in studies:
        numbers[study.sampler] = max(numbers.get(study.sampler, 0), study.knowledge)
    informed = [f"{sampler} ({number})" for sampler, number in numbers.items() if number]
    if not informed:
        return []
    return [f"Imported trials informed {', '.join(informed)} and cost it no budget: compare it with the others so."]


def _ranges(numbers: Sequence[int]) -> str:
    """Such as ``0-5, 8``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def record_notes(studies: Sequence[StudyRecord]) -> list[str]:
    """What a reader has to know of the record behind the numbers."""
    notes = []
    failed = sum(trial.state == "failed" for study in studies for trial in study.last_attempts())
    if failed:
        notes.append(f"{_count(failed, 'trial')} of the budget failed and gave no result: hpo status says why.")
    violating = sum(t.violates and t.state == "complete" for study in studies for t in study.last_attempts())
    if constraints := studies[0].study_file.get("constraints"):
        verb = "violates" if violating == 1 else "violate"
        of = f"{verb} the constraints ({listed(constraints)})"
        notes.append(f"{_count(violating, 'complete trial')} {of} and cannot be the best.")
    imported = sum(study.imported for study in studies)
    if imported:
        notes.append(f"{_count(imported, 'finished trial')} added by hand: not part of this comparison.")
    notes += _start_notes(studies)
    notes += _version_notes(studies)
    if any(trial.counts_slots for study in studies for trial in study.trials):
        notes.append(
            "Seconds of trials that an older version trained side by side are the time in their slots, not "
            "worker-seconds: they are too large by up to the number of slots."
        )
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""Reads metrics out of what a program writes: JSON lines, or lines that a regular expression matches.

An epoch ends with the line that holds the study's metric; other metrics that came since the epoch before belong to it.
"""

import difflib
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST_LINE = 65_536
"""Bytes after which a line without an end is taken as one."""
LONGEST_MATCHED = 4_096
"""Characters of a line that regular expressions see: their time may grow steeply with it."""
LAST_LINES = 20
INFEASIBLE = "infeasible"
"""Key of a line of JSON whose text says why the configuration cannot be trained."""


class LineSplitter:
    """Cuts bytes that arrive in pieces into lines; ``\\r`` ends a line too, as progress bars write it."""

    def __init__(self) -> None:
        self._rest = b""

    def lines(self, data: bytes) -> Iterator[str]:
        """The lines that ``data`` completes."""
        *complete, self._rest = re.split(rb"[\r\n]", self._rest + data)
        for line in complete:
            yield from _pieces(line)
        while len(self._rest) > LONGEST_LINE:
            piece, self._rest = self._rest[:LONGEST_LINE], self._rest[LONGEST_LINE:]
            yield piece.decode("utf-8", "backslashreplace")

    def last(self) -> str:
        """What was written after the last end of a line."""
        line, self._rest = self._rest, b""
        return line.decode("utf-8", "backslashreplace")


def _pieces(line: bytes) -> Iterator[str]:
    for start in range(0, len(line), LONGEST_LINE):
        yield line[start : start + LONGEST_LINE].decode("utf-8", "backslashreplace")


@dataclass
class MetricReader:
    """Recognizes metrics in lines and puts them together to epochs.

    Attributes:
        objective: the study's metric; the line that holds it ends an epoch.
        patterns: a regular expression for each metric whose first group is its number.
        last_epoch: number of the last epoch that ended; lines of it or an earlier one are ignored.
        notes: what was ignored and why, for the trial's log; each kind once.
        last_lines: the end of what was read.
        infeasible: why the program says that its configuration cannot be trained; None if it has not.
    """

    objective: str
    patterns: Mapping[str, "re.Pattern[str]"] = field(default_factory=dict)
    last_epoch: int = 0
    notes: list[str] = field(default_factory=list)
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    num_epochs: int = 0
    infeasible: str | None = None
    _gathered: dict[str, float] = field(default_factory=dict)
    _nearest: list[tuple[float, str]] = field(default_factory=list)
    _noted: set[str] = field(default_factory=set)

    def read(self, line: str, *, is_json: bool = False) -> tuple[int, dict[str, float]] | None:
        """Takes one line; returns an epoch's number and metrics if it ends one.

        ``is_json``: the line comes from a file that holds nothing but JSON, so that something else is worth a note.
        """
        if not line.strip():
            return None
        if not is_json:
            self.last_lines.append(line[:500])
        values = self._json(line, is_json) or self._matched(line)
        if not values:
            self._remember(line)
            return None
        epoch = values.pop("epoch", None)
        self._gathered.update(values)
        if self.objective not in values:
            return None
        number = self.last_epoch + 1 if epoch is None else int(epoch)
        metrics, self._gathered = self._gathered, {}
        if number <= self.last_epoch:
            self._note(f"a report of epoch {number} came after that of epoch {self.last_epoch}; it is ignored")
            return None
        self.last_epoch = number
        self.num_epochs += 1
        return number, metrics

    def explanation(self) -> str:
        """What was looked for, and which lines came nearest; for a program that ended without its metric."""
        pattern = self.patterns.get(self.objective)
        looked = f"hpo.report({self.objective}=…), or a line of JSON with {self.objective!r}"
        if pattern is not None:
            looked = f"lines that match {pattern.pattern!r}, {looked}"
        nearest = [line.strip()[:160] for _, line in sorted(self._nearest, reverse=True)[:3]]
        text = f"it never reported {self.objective!r}; looked for {looked}"
        if nearest:
            text += "; the nearest lines: " + " | ".join(nearest)
        return text

    def _json(self, line: str, is_json: bool) -> dict[str, float]:
        text = line.strip()
        if not (text.startswith("{") and text.endswith("}")) and not is_json:
            return {}
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            if is_json or f'"{self.objective}"' in text:
                self._note(f"a line that is no JSON is ignored: {text[:100]}")
            return {}
        if not isinstance(content, dict):
            return {}
        self._note_infeasible(content)
        values: dict[str, float] = {}
        for name, value in content.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                number = _as_float(value)
                if name == "epoch" and not number.is_integer():
                    self._note(f"epoch = {value!r} is no whole number; it is ignored")
                else:
                    values[name] = number
            elif name in (self.objective, "epoch"):
                self._note(f"{name} = {value!r} is no number; it is ignored")
        return values

    def _note_infeasible(self, content: Mapping[str, Any]) -> None:
        """Takes ``{"infeasible": "reason"}``, or true in place of the reason; the first one counts."""
        reason = content.get(INFEASIBLE)
        if self.objective != INFEASIBLE and self.infeasible is None and (reason is True or isinstance(reason, str)):
            self.infeasible = reason if isinstance(reason, str) and reason.strip() else "the program says so"

    def _matched(self, line: str) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, pattern in self.patterns.items():
            match = pattern.search(line[:LONGEST_MATCHED])
            if match is None:
                continue
            try:
                number = float(match[1])
            except (TypeError, ValueError):
                self._note(f"the expression of {name} gave {match[1]!r}, which is no number; it is ignored")
                continue
            if name != "epoch" or number.is_integer():
                values[name] = number
        return values

    def _remember(self, line: str) -> None:
        """Keeps the lines that look most like one with the objective."""
        words = [word for word in re.split(r"[^a-z]+", self.objective.lower()) if word]
        lowered = line[:500].lower()
        score = sum(word in lowered for word in words) / max(1, len(words)) + 0.5 * any(c.isdigit() for c in lowered)
        score += 0.5 * difflib.SequenceMatcher(None, self.objective.lower(), lowered[:80]).quick_ratio()
        if len(self._nearest) < 3 or score > self._nearest[0][0]:
            self._nearest = sorted([*self._nearest, (score, line[:500])])[-3:]

    def _note(self, text: str) -> None:
        kind = re.sub(r"\d+", "0", text)
        if kind not in self._noted and len(self._noted) < 20:
            self._noted.add(kind)
            self.notes.append(text)


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")

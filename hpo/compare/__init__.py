"""Compares the samplers of an experiment: numbers first (no plotly, no storage), then the drawings of them.

records.py       studies and trials as plain dataclasses    load.py          fills them from the database
stats.py         intervals and bootstrap bands              significance.py  the test, its power, ranks
summary.py       final values of one sampler                pairs.py         differences of samplers, the verdict
curves.py        best so far against cost, speed-up         spending.py      cost, duplicates, audit, noise floor
importance.py    PED-ANOVA for each sampler                 notes.py         what a reader must not miss
comparison.py    all of it for one experiment               tasks.py         several experiments: ranks
tables.py        the comparison as rows of cells            figures.py       the comparison as plotly figures
render.py, page/ templates, style and scripts of pages      output.py        terminal, JSON, CSV, one page
report.py        compares experiments, trains again         publish.py       into Optuna's own pages
python.py        ``hpo.compare(...)``

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import sys
import types
from typing import Any


class _CallablePackage(types.ModuleType):
    """The public function ``hpo.compare`` has the name of this package, so the package is called as the function."""

    def __call__(self, *experiments: str, **options: Any) -> Any:
        """See :func:`hpo.compare.python.compare`."""
        from hpo.compare.python import compare

        return compare(*experiments, **options)


sys.modules[__name__].__class__ = _CallablePackage

"""The best configurations of an experiment: as files, trained again, looked into.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import sys
import types
from pathlib import Path
from typing import Any


class _CallablePackage(types.ModuleType):
    """The public function ``hpo.export`` has the name of this package, so the package is called as the function."""

    def __call__(self, experiment: str, path: str | Path | None = None, **options: Any) -> Any:
        """See :func:`hpo.export.python.export`."""
        from hpo.export.python import export

        return export(experiment, path, **options)


sys.modules[__name__].__class__ = _CallablePackage

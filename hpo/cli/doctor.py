"""``hpo doctor``: checks this machine and the settings.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import dataclasses

import typer

from hpo.cli.options import DataOption, HomeOption, JsonOption, StorageOption
from hpo.cli.support import print_json


def doctor(
    storage: StorageOption = None,
    home: HomeOption = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check versions, Postgres, GPUs, data, home, rights and disk; exits with 1 if searches cannot run."""
    from hpo.doctor import examine
    from hpo.settings import Settings

    found = examine(Settings.given(storage=storage, home=home, data_dir=data_dir))
    is_well = all(check.verdict != "problem" for check in found)
    if as_json:
        print_json({"ok": is_well, "checks": [dataclasses.asdict(check) for check in found]})
    else:
        width = max(len(check.name) for check in found)
        for check in found:
            print(f"{check.verdict:<8}{check.name:<{width}}  {check.found}")
            if check.mend:
                print(f"{'':<{8 + width}}  -> {check.mend}")
        print("searches can run here" if is_well else "mend the problems, then run hpo doctor again")
    if not is_well:
        raise typer.Exit(1)

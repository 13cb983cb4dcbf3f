"""``hpo doctor``: what hpo needs and finds on this machine, a check each, with the mend for what is missing.

Imports inside functions keep the start quick: torch is imported in a process of its own, which may crash.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from hpo.settings import Settings

Verdict = Literal["ok", "note", "problem"]
LEAST_FREE_BYTES = 2 * 10**9
OLDEST_POSTGRES = 130_000
TORCH_SECONDS = 120.0
PACKAGES = ("hpo-service", "optuna", "optuna-dashboard", "sqlalchemy", "pydantic", "torch", "torchvision", "ray")
ASK_TORCH = """
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "gpus": gpus,
  "mps": torch.backends.mps.is_available()}))
"""


@dataclasses.dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        verdict: ``problem`` if searches cannot run as they are set up, ``note`` if something optional is absent.
        found: one line.
        mend: what to do; "" if nothing.
    """

    name: str
    verdict: Verdict
    found: str
    mend: str = ""


def examine(settings: Settings) -> list[Check]:
    """All checks; none of them writes anything but a file in the home that it removes again."""
    checks: list[Callable[[], Iterator[Check]]] = [
        _versions,
        lambda: _home(settings),
        lambda: _database(settings),
        _gpus,
        lambda: _data(settings),
        _machine,
    ]
    found = []
    for check in checks:
        found += list(check())
    return found


def _versions() -> Iterator[Check]:
    python = f"Python {platform.python_version()} at {sys.executable}, {platform.system()} {platform.machine()}"
    fits = (3, 11) <= sys.version_info[:2] < (3, 15)
    yield Check("python", "ok" if fits else "problem", python, "" if fits else "use Python 3.11 to 3.14")
    if platform.system() == "Windows":
        yield Check("system", "problem", "Windows", "install hpo in WSL2: wsl --install")
    for name in PACKAGES:
        try:
            yield Check(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            extra = {"torch": "classifier", "torchvision": "classifier", "ray": "ray"}.get(name)
            if extra is None:
                yield Check(name, "problem", "is not installed", f"pip install {name}")
            else:
                what = (
                    "your own trainers and programs need none of it" if extra == "classifier" else "only --launcher ray"
                )
                yield Check(name, "note", f"is not installed: {what}", f"pip install 'hpo-service[{extra}]'")


def _home(settings: Settings) -> Iterator[Check]:
    home = settings.home_path
    mend = "name a folder that you may write to: export HPO_HOME=FOLDER, or --home FOLDER"
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not existing.is_dir():
        yield Check("home", "problem", f"{home}: {existing} is no folder", mend)
        return
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".hpo-doctor-"):
            pass
        yield Check("home", "ok", f"{home}{'' if home.exists() else ', which will be made'}")
    except OSError as error:
        yield Check("home", "problem", f"{home} cannot be written: {error.strerror}", mend)
    free = shutil.disk_usage(existing).free
    few = free < LEAST_FREE_BYTES
    mend = "delete experiments (hpo status, hpo delete NAME), or move the home: HPO_HOME" if few else ""
    yield Check("disk", "problem" if few else "ok", f"{free / 1e9:.1f} GB free at {existing}", mend)


def _database(settings: Settings) -> Iterator[Check]:
    import sqlalchemy as sa

    from hpo.database.address import masked
    from hpo.database.storage import open_storage
    from hpo.errors import HPOError

    given = settings.storage not in (None, "embedded")
    where = masked(str(settings.storage)) if given else "the embedded server"
    try:
        storage = open_storage(settings.storage, home=settings.home)
        with storage.engine.connect() as connection:
            number = int(str(connection.execute(sa.text("SHOW server_version_num")).scalar_one()))
            version = connection.execute(sa.text("SHOW server_version")).scalar_one()
            may_create = connection.execute(
                sa.text("SELECT has_schema_privilege(current_schema(), 'CREATE')")
            ).scalar_one()
    except HPOError as error:
        mend = "check the address in HPO_STORAGE or --storage, and that the server takes connections from here"
        if not given:
            mend = f"read {settings.home_path}/postgres/log; another home is another server: --home FOLDER"
        yield Check("postgres", "problem", f"{where}: {error}", mend)
        return
    old = number < OLDEST_POSTGRES
    yield Check(
        "postgres", "problem" if old else "ok", f"{version}, {where}", "use Postgres 13 or newer" if old else ""
    )
    if not may_create:
        yield Check("rights", "problem", "this user may not make tables", "GRANT CREATE ON SCHEMA public TO <user>;")
    else:
        yield Check("rights", "ok", "this user may make tables")


def _gpus() -> Iterator[Check]:
    from hpo.machine import gpu_indices

    seen = gpu_indices()
    shown = f"{len(seen)}: {', '.join(seen)}" if seen else "none: workers use the cores"
    yield Check("gpus", "ok", shown)
    if _is_absent("torch"):
        return
    try:
        asked = subprocess.run(
            [sys.executable, "-P", "-c", ASK_TORCH], capture_output=True, text=True, timeout=TORCH_SECONDS
        )
    except subprocess.TimeoutExpired:
        yield Check(
            "torch sees",
            "problem",
            f"import torch took more than {TORCH_SECONDS:.0f} s",
            "check the driver: nvidia-smi",
        )
        return
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
        yield Check("torch sees", "problem", f"torch cannot be imported: {last}", "pip install --force-reinstall torch")
        return
    told = json.loads(asked.stdout.strip().splitlines()[-1])
    names = ", ".join(told["gpus"]) or "no GPU"
    build = f"built for CUDA {told['cuda']}" if told["cuda"] else "built without CUDA"
    if seen and len(told["gpus"]) < len(seen):
        mend = "install a build of torch for this driver: nvidia-smi shows its CUDA version, pytorch.org the command"
        if told["cuda"] is None:
            mend = "install a build of torch with CUDA: pytorch.org shows the command; --gpus none trains on the cores"
        yield Check("torch sees", "problem", f"{names} of {len(seen)}; {build}", mend)
        return
    yield Check("torch sees", "ok", f"{names}; {build}" + ("; hpo does not use Apple's GPU" if told["mps"] else ""))


def _is_absent(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return True
    return False


def _data(settings: Settings) -> Iterator[Check]:
    folder = settings.data_dir
    mend = "give it with --data-dir or HPO_DATA; hpo launch --download fetches MNIST, Fashion-MNIST and CIFAR-10"
    if folder is None:
        yield Check("data", "note", "no data folder is set: only the digits and data of your own trainers", mend)
        return
    if not folder.is_dir():
        yield Check("data", "problem", f"{folder} is no folder", mend)
        return
    if not os.access(folder, os.R_OK | os.X_OK):
        yield Check("data", "problem", f"{folder} cannot be read", f"chmod +rx {folder}")
        return
    from hpo.trainers.loading import load_trainers

    load_trainers("")
    from hpo.trainers.classifier.datasets import DATASETS

    there: list[str] = []
    absent: list[str] = []
    for name, entry in DATASETS.items():
        if entry.files:
            place = folder / (entry.folder or "")
            (there if all((place / file).exists() for file, _ in entry.files) else absent).append(name)
    shown = f"{folder}: {', '.join(there) or 'no data set of the classifier'}"
    if absent:
        yield Check(
            "data", "note", f"{shown}; absent: {', '.join(absent)}", "hpo launch STUDY_FILE --download fetches it"
        )
    else:
        yield Check("data", "ok", shown)


def _machine() -> Iterator[Check]:
    from hpo.machine import available_memory, usable_cores

    cores, memory = usable_cores(), available_memory()
    small = memory < 1 << 30
    mend = "a worker takes about 1 GB with torch: --workers 1, or end other programs" if small else ""
    yield Check(
        "machine", "note" if small else "ok", f"{cores} cores, {memory / 1e9:.1f} GB of memory can be used", mend
    )
    shared = Path("/dev/shm")
    if shared.is_dir() and (size := shutil.disk_usage(shared).total) < 64 * 2**20:
        yield Check("shared memory", "problem", f"/dev/shm holds {size / 2**20:.0f} MB", "docker run --shm-size 1g")

"""The failure table: what happened, whose fault it is, what follows for the trial and for the worker.

Workers look up the row of an error with :func:`classify`; launchers read the exit code that its row names, and ask
:func:`why_nothing_succeeds` after a worker's death. :func:`as_markdown` prints the table for the documentation.
"""

import dataclasses
import errno
import gc
import re
import traceback
from collections import Counter
from collections.abc import Iterator

import sqlalchemy as sa

from hpo.database import retries
from hpo.worker.exit_codes import EXIT_DEVICE, EXIT_MEMORY, EXIT_RESTART


@dataclasses.dataclass(frozen=True)
class Failure:
    """A row of the table.

    Attributes:
        name: what code compares.
        happened, whose, trial, worker: the row's text, for people.
        ends_worker: the process is in a state in which no other trial may be trained.
        exit_code: with which the worker then ends.
    """

    name: str
    happened: str
    whose: str
    trial: str
    worker: str
    ends_worker: bool = False
    exit_code: int = EXIT_RESTART


NOT_FINITE = Failure(
    "not finite", "the metric is infinite or not a number", "the configuration's", "PRUNED, with the reason", "goes on"
)
INFEASIBLE = Failure(
    "infeasible",
    "a validator refuses the configuration, the trainer raises `hpo.Infeasible`, or a program calls `hpo.infeasible`",
    "the configuration's",
    "PRUNED as infeasible; costs no budget, and another configuration is drawn (a grid's cell stays PRUNED)",
    "goes on",
)
PRUNED = Failure(
    "pruned", "the trainer raises `optuna.TrialPruned`", "the configuration's", "PRUNED, with the reason", "goes on"
)
OUT_OF_MEMORY = Failure(
    "out of memory",
    "out of memory: `MemoryError`, `torch.OutOfMemoryError`, cuBLAS, NumPy, JAX",
    "the configuration's, if it was alone in a fresh process",
    "tried again alone; infeasible if it runs out of memory again",
    "is replaced",
    ends_worker=True,
)
OUT_OF_MEMORY_AT_ONCE = dataclasses.replace(
    OUT_OF_MEMORY,
    name="out of memory at once",
    happened="the same, in the first trial of a process, and no trial has a result yet",
    worker="is replaced, and counted as one of `--max-restarts`",
    exit_code=EXIT_MEMORY,
)
DEVICE_LOST = Failure(
    "device lost",
    "the device is in an error that stays: `CUDA error`, `torch.AcceleratorError`",
    "the device's or the configuration's",
    "given back; FAIL if it happens to the lineage again",
    "is replaced at once; the launcher rests a device on which it happens with several configurations",
    ends_worker=True,
    exit_code=EXIT_DEVICE,
)
PROCESS_STATE = Failure(
    "process state",
    "the process or the machine has no room: too many open files, no more threads, no space on the disk",
    "the process's; the configuration's, if it was alone in a fresh process",
    "given back; if it was alone in a fresh process, as an error that the trainer raises",
    "is replaced",
    ends_worker=True,
)
MEMORY_LIMIT = Failure(
    "memory limit",
    "the worker grows past `--memory-limit-mb`",
    "the process's; the trial's, if it was alone in a fresh process",
    "given back; FAIL if it was alone and grows past it again without a further epoch",
    "is replaced",
    ends_worker=True,
)
RAISED = Failure(
    "raised",
    "the trainer raises anything else, `SystemExit` too, or the sampler raises",
    "not known",
    "FAIL, and tried again at most `max_retries` times; the same error twice ends the lineage",
    "goes on",
)
REFUSED_VALUES = Failure(
    "refused values",
    "a trial that a person enqueued has values that the study cannot use",
    "the person's",
    "FAIL, with the value in the reason; not tried again",
    "goes on",
)
EPOCH_TIMEOUT = Failure(
    "epoch timeout",
    "an epoch takes longer than `epoch_timeout_seconds`",
    "the trial's, if it was trained alone",
    "as a process that dies",
    "ends its process, and is replaced",
    ends_worker=True,
)
DIED = Failure(
    "died",
    "the process dies while it trains one trial: a crash, the kernel's memory killer, `os._exit`",
    "the trial's",
    "tried again `max_retries` / 3 times, at least once; an attempt that moved on is not counted",
    "is replaced; not counted as one of `--max-restarts`",
    ends_worker=True,
)
DIED_WITH_SEVERAL = Failure(
    "died with several",
    "the process dies while it trains several trials",
    "one of theirs",
    "all given back; each is then trained alone, until it has finished or ends its process again",
    "is replaced",
    ends_worker=True,
)
ASKED_TO_END = Failure(
    "asked to end",
    "SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP, SIGXCPU, the end of an allocation",
    "nobody's",
    "given back, with its checkpoint",
    "ends",
)
SILENT = Failure(
    "silent",
    "a worker sends no heartbeat for the grace period",
    "the worker's",
    "given to another worker, at most `max_retries` times without progress",
    "its writes are refused",
)
DATABASE_AWAY = Failure("database away", "the database does not answer", "nobody's", "goes on", "waits")
NOTHING_SUCCEEDS = Failure(
    "nothing succeeds",
    "no trial has a result, and 5 lineages failed for good with one error, or 20 with any",
    "the set-up's",
    "-",
    "the launch ends with the reason",
)
CANNOT_START = Failure(
    "cannot start",
    "several workers in a row fail at their start",
    "the set-up's",
    "-",
    "the launch ends with the reason of the first",
)

TABLE = (
    NOT_FINITE,
    INFEASIBLE,
    PRUNED,
    OUT_OF_MEMORY,
    OUT_OF_MEMORY_AT_ONCE,
    DEVICE_LOST,
    PROCESS_STATE,
    MEMORY_LIMIT,
    RAISED,
    REFUSED_VALUES,
    EPOCH_TIMEOUT,
    DIED,
    DIED_WITH_SEVERAL,
    ASKED_TO_END,
    SILENT,
    DATABASE_AWAY,
    NOTHING_SUCCEEDS,
    CANNOT_START,
)

OUT_OF_MEMORY_TEXTS = re.compile(
    r"out of memory|OutOfMemory|RESOURCE_EXHAUSTED|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED"
    r"|(can't|cannot|unable to|failed to) allocate (memory|.{0,40}\b(bytes|[KMGT]i?B)\b)"
    r"|ArrayMemoryError|std::bad_alloc|hipErrorOutOfMemory|DefaultCPUAllocator",
    re.IGNORECASE,
)
DEVICE_TEXTS = re.compile(
    r"CUDA error|CUDA driver error|CUDA failure|device-side assert|HIP error|cuDNN error|CUDNN_STATUS_(EXECUTION_FAILED"
    r"|INTERNAL_ERROR|MAPPING_ERROR)|CUBLAS_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|NOT_INITIALIZED)|NCCL error"
    r"|illegal memory access|unspecified launch failure|Xid|fallen off the bus|device .{0,20}(lost|unavailable)"
    r"|CUDA_ERROR_(?!OUT_OF_MEMORY)|XPU error|MPS backend error",
)
PROCESS_TEXTS = re.compile(
    r"too many open files|can't start new thread|no space left on device|resource temporarily unavailable"
    r"|disk quota exceeded|unable to open shared memory object|file descriptor",
    re.IGNORECASE,
)
PROCESS_ERRNOS = {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN}


def classify(error: BaseException) -> Failure:
    """The row of the table for an error that a trainer raised; that of the error beneath it if it says more."""
    for cause in _chain(error):
        if (failure := _classify(cause)) is not RAISED:
            return failure
    return RAISED


def _classify(error: BaseException) -> Failure:
    names = {kind.__name__ for kind in type(error).__mro__}
    text = _message(error)
    if "Infeasible" in names:
        return INFEASIBLE
    if "TrialPruned" in names:
        return PRUNED
    if names & {"MemoryError", "OutOfMemoryError"} or getattr(error, "errno", None) == errno.ENOMEM:
        return OUT_OF_MEMORY
    # Python's own errors quote what a person wrote; the libraries raise theirs as one of these.
    is_library_error = isinstance(error, (RuntimeError, OSError)) or "XlaRuntimeError" in names
    if is_library_error and OUT_OF_MEMORY_TEXTS.search(text):
        return OUT_OF_MEMORY
    if "AcceleratorError" in names or (is_library_error and DEVICE_TEXTS.search(text)):
        return DEVICE_LOST
    if isinstance(error, OSError) and error.errno in PROCESS_ERRNOS:
        return PROCESS_STATE
    if is_library_error and PROCESS_TEXTS.search(text):
        return PROCESS_STATE
    return RAISED


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it was raised from or while handling."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"(its message cannot be shown: {type(broken).__name__})"


def describe(error: BaseException) -> str:
    """Type and message, in characters that Postgres can hold, whatever the trainer has put into the message."""
    text = f"{type(error).__name__}: {_message(error)}"[:2000]
    return text.encode(errors="backslashreplace").decode().replace("\x00", "\\x00")


def normalise(text: str) -> str:
    """An error's text without what differs from one time to the next: numbers, sizes, addresses, pids, paths."""
    text = re.sub(r"(?:[A-Za-z]:)?(?:[/\\][\w.@+~-]+){2,}[/\\]?", "<path>", text)
    text = re.sub(r"\b0x[0-9a-fA-F]+\b|\b[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}\b|\b(?=\w*\d)[0-9a-fA-F]{12,}\b", "<n>", text)
    return re.sub(r"(?<![A-Za-z])[+-]?\d[\d_,.]*(?:[eE][+-]?\d+)?", "<n>", text)


def release(error: BaseException) -> None:
    """Lets go of what the error's tracebacks keep alive: the frames of a trial that failed hold its network."""
    for cause in list(_chain(error)):
        if cause.__traceback__ is not None:
            traceback.clear_frames(cause.__traceback__)
            cause.__traceback__ = None
    gc.collect()


LEAST_LINEAGES_WITH_ONE_ERROR = 5
LEAST_LINEAGES = 20


def why_nothing_succeeds(engine: sa.Engine, study_ids: list[int]) -> str | None:
    """The reason if no trial of an experiment has a result and enough have failed for good; else None.

    As long as others succeed, failures of any number end nothing.
    """
    num_results, reasons = retries.results_and_failures(engine, study_ids)
    if num_results or not reasons:
        return None
    (_, count), *_ = Counter(normalise(reason) for reason in reasons).most_common(1)
    if count < LEAST_LINEAGES_WITH_ONE_ERROR and len(reasons) < LEAST_LINEAGES:
        return None
    return f"{len(reasons)} trials failed and none has succeeded; the last one: {reasons[-1]}"


def as_markdown() -> str:
    """The table in Markdown, for the documentation."""
    header = ["what happened", "whose fault", "what follows for the trial", "for the worker"]
    rows = [[row.happened, row.whose, row.trial, row.worker] for row in TABLE]
    lines = ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * 4, *rows]]
    return "\n".join(lines) + "\n"

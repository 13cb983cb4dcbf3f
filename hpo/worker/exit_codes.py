"""Exit codes of a worker process, as its launcher reads them; the rows of :mod:`hpo.worker.failures` name them.

0: nothing is left to do. 1 or 2: the run cannot go on, the reason is in the log's last line. 130: it was asked to end.
"""

EXIT_BUG = 70  # a fault of the service itself: its traceback is in the log; the launcher counts it as a restart
EXIT_MEMORY = 71  # the first trial ran out of memory and nothing has succeeded yet: counted as a restart
EXIT_DEVICE = 74  # its device raised a sticky error: replaced, not counted; the launcher counts them for each device
EXIT_NOTHING_SUCCEEDS = 76  # trials fail and none has a result: the launch ends with the reason
EXIT_RESTART = 75  # replaced at once, not counted as a restart

EXIT_PAUSED = 77  # a person has paused the experiment: replaced by a worker that waits without a device, not counted

REPLACED = frozenset({EXIT_DEVICE, EXIT_RESTART, EXIT_PAUSED})
"""The worker asked to be replaced: it has given its trials back, and the launcher does not count a restart."""

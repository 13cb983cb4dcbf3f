"""Exit codes of a worker process, as its launcher reads them."""

EXIT_MEMORY = 71  # the first trial here already ran out of memory: the launcher gives up after some of these
EXIT_BUG = 70  # a fault of ours: its traceback is in the log, and another worker may have more luck
EXIT_RESTART = 75  # the launcher starts another worker in place of one that ends with this

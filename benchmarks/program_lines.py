"""What a program that writes 1,000 JSON lines a second costs its worker: CPU seconds a second, of one core.

The lines are metrics beside the objective, which is reported once a second, as a script logs its steps. Beside it: a
program that writes the objective's line once a second alone, which is what waiting for a program costs.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from hpo.trainers.program import ProgramOptions, ProgramTrainer
from hpo.trainers.protocol import EpochEnd, Run

SOURCE = """
import sys, time
rate, seconds = int(sys.argv[1]), int(sys.argv[2])
started = time.monotonic()
for epoch in range(1, seconds + 1):
    for line in range(rate):
        print('{"loss": 0.25, "step": %d}' % line, flush=True)
        if line % 10 == 9:
            time.sleep(max(0.0, started + epoch - 1 + line / rate - time.monotonic()))
    time.sleep(max(0.0, started + epoch - time.monotonic()))
    print('{"value": 0.5, "epoch": %d}' % epoch, flush=True)
"""


def cpu_share(rate: int, seconds: int) -> float:
    """CPU seconds of this process a second while a program writes ``rate`` lines a second for ``seconds``."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "lines.py"
        script.write_text(SOURCE)
        options = ProgramOptions((sys.executable, str(script), str(rate), str(seconds)), "value", args="none")
        trainer = ProgramTrainer(options)
        trainer.start("lines", {}, Run(trial_folder=Path(folder) / "trial"))
        num_epochs = len(
            [event for event in trainer.advance() if isinstance(event, EpochEnd)]
        )  # its start is not counted
        started, before = time.monotonic(), _cpu_seconds()
        while events := trainer.advance():
            num_epochs += sum(isinstance(event, EpochEnd) for event in events)
            if num_epochs == seconds:
                break
        share = (_cpu_seconds() - before) / (time.monotonic() - started)
        trainer.close()
    if num_epochs != seconds:
        raise RuntimeError(f"{num_epochs} epochs arrived of {seconds}")
    return share


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=1000, help="lines a second")
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    for rate in (0, options.rate):
        print(f"{rate:6} lines a second: {100 * cpu_share(rate, options.seconds):5.2f} % of a core")


if __name__ == "__main__":
    main()

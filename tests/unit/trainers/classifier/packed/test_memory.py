"""How much memory is left for slots."""

import subprocess
import sys

CHECK = """
import numpy as np

from hpo.machine import held_memory
from hpo.trainers.classifier.packed.memory import available_bytes
from hpo.trainers.protocol import BuildOptions

MIB = 2**20
share = held_memory() + 500 * MIB
before = available_bytes(BuildOptions(memory_bytes=share))
assert 400 * MIB < before <= 510 * MIB, before
taken = np.ones(200 * MIB, dtype=np.uint8)
after = available_bytes(BuildOptions(memory_bytes=share))
assert 180 * MIB < before - after < 260 * MIB, (before, after)
assert available_bytes(BuildOptions(memory_bytes=20 * MIB)) == 0  # it holds more than that
assert len(taken) == 200 * MIB
"""


def test_what_the_process_holds_already_is_taken_off_its_share() -> None:
    """In a process of its own: one that has run other tests gives memory back at any time."""
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

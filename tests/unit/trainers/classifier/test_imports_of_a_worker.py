"""A worker that trains imports no compiler: torch._dynamo and sympy cost a second and 150 MB in each process."""

import subprocess
import sys

TRAIN = """
import sys
from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.packed.trainer import PackedTrainer
from hpo.trainers.classifier.training import ClassifierTrainer
from hpo.trainers.protocol import BuildOptions, Run

for optimizer in ("sgd", "adam"):
    for trainer in (ClassifierTrainer(BuildOptions()), PackedTrainer(BuildOptions(), 2)):
        config = ClassifierConfig(dataset="digits", network="mlp", epochs=1, batch_size=64, optimizer=optimizer)
        trainer.start("trial", config, Run(device="cpu", seed=1))
        events = trainer.advance()
        assert [type(event).__name__ for event in events][:1] == ["EpochEnd"], events
        events[0].snapshot()
print(sorted({"sympy", "torch._dynamo", "torch._inductor"} & set(sys.modules)))
"""


def test_training_imports_no_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"

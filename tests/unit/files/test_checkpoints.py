"""Checkpoints: whole or not there, damage recognized, nothing unpickled, never more than two of a lineage."""

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import pickle
import random
import subprocess
import sys
import threading
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

import hpo.files.checkpoints
from hpo.errors import CheckpointError
from hpo.files.checkpoints import Checkpoint, CheckpointFolder
from hpo.trainers.classifier.training import ClassifierTrainer
from hpo.trainers.protocol import BuildOptions, EpochEnd, Run
from tests.unit.packed_support import configuration

HISTORY = [{"loss": 0.5, "lr": 0.1}]


def checkpoint(epoch: int, **state: Any) -> Checkpoint:
    return Checkpoint(epoch, {"x": epoch, **state}, HISTORY * epoch)


def files(folder: CheckpointFolder, lineage: int = 0) -> list[str]:
    return sorted(os.listdir(folder.lineage_path(lineage)))


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints", "key")


class TestWhatComesBack:
    @pytest.mark.parametrize(
        "state",
        [
            {},
            {"x": 1, "y": 0.1 + 0.2, "text": "Grüße", "none": None, "list": [1, [2.5, True]]},
            {"infinite": [math.inf, -math.inf], "word": "NaN and Infinity", "zero": -0.0},
            {1: "a key that is a number", "x": 0.5},
            {"pair": (1, 2), "bytes": b"\x00\xff", "set": {3}},
            OrderedDict(a=1, b=torch.arange(3)),
        ],
    )
    def test_the_same(self, folder: CheckpointFolder, state: dict[Any, Any]) -> None:
        folder.save(7, Checkpoint(3, state, HISTORY * 3))
        loaded = folder.latest(7)
        assert loaded is not None
        assert (loaded.epoch, loaded.history) == (3, HISTORY * 3)
        assert repr(loaded.state) == repr(state)

    @pytest.mark.parametrize("state", [{"x": math.nan, "pair": (1, 2)}, {"x": math.nan, 4: 0.5}, {"x": [math.nan]}])
    def test_a_nan_does_not_hide_what_json_would_lose(self, folder: CheckpointFolder, state: dict[Any, Any]) -> None:
        folder.save(0, Checkpoint(1, state, [{"loss": math.nan}]))
        loaded = folder.latest(0)
        assert loaded is not None
        assert repr(loaded.state) == repr(state)
        assert math.isnan(loaded.history[0]["loss"])

    @pytest.mark.parametrize(("state", "form"), [({"x": [math.nan, math.inf]}, "json"), ({"x": (1,)}, "torch")])
    def test_json_where_it_loses_nothing(self, folder: CheckpointFolder, state: dict[str, Any], form: str) -> None:
        """A trainer without torch must not wait two seconds for its import."""
        folder.save(0, Checkpoint(1, state, HISTORY))
        header = Path(folder.lineage_path(0), "000001.ckpt").read_bytes().partition(b"\n")[0]
        assert json.loads(header)["format"] == form

    def test_tensors_to_the_last_bit(self, folder: CheckpointFolder) -> None:
        drawn = {dtype: torch.randn(4, 3).to(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float64)}
        state = {"network": {str(dtype): value for dtype, value in drawn.items()}, "steps": torch.tensor(7)}
        folder.save(0, Checkpoint(1, state, HISTORY))
        loaded = folder.latest(0)
        assert loaded is not None
        for dtype, value in drawn.items():
            assert loaded.state["network"][str(dtype)].dtype == dtype
            assert torch.equal(loaded.state["network"][str(dtype)], value)
        assert loaded.state["steps"].shape == ()

    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    def test_what_the_classifier_puts_in_it(self, folder: CheckpointFolder, optimizer: str) -> None:
        trainer = ClassifierTrainer(BuildOptions(threads=1))
        trainer.start("a", configuration(optimizer=optimizer, dropout=0.2, batch_norm=True), Run(seed=1))
        (event,) = trainer.advance()
        assert isinstance(event, EpochEnd)
        assert event.snapshot is not None
        folder.save(0, Checkpoint(1, event.snapshot(), HISTORY))
        loaded = folder.latest(0)
        assert loaded is not None
        # 64 x 24 + 24, two pairs of batch normalization, 24 x 16 + 16, 16 x 10 + 10 float32 and their running values.
        assert sum(tensor.numel() for tensor in loaded.state["network"].values()) == 1560 + 400 + 170 + 4 * 40 + 2
        remembered = {"sgd": {"momentum_buffer"}, "adam": {"exp_avg", "exp_avg_sq", "step"}}[optimizer]
        assert [set(entry) for entry in loaded.state["optimizer"]] == [remembered] * 10

    @pytest.mark.parametrize(
        ("state", "place"),
        [
            ({"t": torch.zeros(1), "net": {"w": np.zeros(2)}}, r"the state\['net'\]\['w'\] is a numpy.ndarray"),
            ({"t": torch.zeros(1), "best": [np.float64(1.0)]}, r"the state\['best'\]\[0\] is a numpy.float64"),
            ({"model": torch.nn.Linear(1, 1)}, r"the state\['model'\] is a torch.nn.modules.linear.Linear"),
            ({"f": len}, r"the state\['f'\] is a builtins.builtin_function"),
            ({"d": defaultdict(list, a=(1,))}, r"the state\['d'\] is a collections.defaultdict"),
            ({"key": {Path("x"): 1}}, r"a key of the state\['key'\] is a pathlib"),
        ],
    )
    def test_what_could_not_be_read_back_is_refused_when_saved(
        self, folder: CheckpointFolder, state: dict[str, Any], place: str
    ) -> None:
        with pytest.raises(TypeError, match=f"{place}.*a checkpoint holds dicts, lists, numbers"):
            folder.save(0, Checkpoint(1, state, HISTORY))
        assert folder.latest(0) is None


class TestDamage:
    @pytest.mark.parametrize("state", [{}, {"tensor": torch.arange(5)}], ids=["json", "torch"])
    def test_cut_short_anywhere_the_one_before_is_used(self, folder: CheckpointFolder, state: dict[str, Any]) -> None:
        for epoch in (1, 2):
            folder.save(0, checkpoint(epoch, **state))
        path = Path(folder.lineage_path(0), "000002.ckpt")
        whole = path.read_bytes()
        for length in [0, 1, whole.index(b"\n"), whole.index(b"\n") + 1, len(whole) // 2, len(whole) - 1]:
            path.write_bytes(whole[:length])
            loaded = folder.latest(0)
            assert loaded is not None
            assert loaded.epoch == loaded.state["x"] == 1, length

    @pytest.mark.parametrize("state", [{}, {"tensor": torch.arange(5)}], ids=["json", "torch"])
    def test_a_byte_altered_anywhere_is_recognized(self, folder: CheckpointFolder, state: dict[str, Any]) -> None:
        for epoch in (1, 2):
            folder.save(0, checkpoint(epoch, **state))
        path = Path(folder.lineage_path(0), "000002.ckpt")
        whole = path.read_bytes()
        drawn = random.Random(0)
        header = whole.index(b"\n") + 1
        for place in [*range(header), *drawn.sample(range(header, len(whole)), min(150, len(whole) - header))]:
            altered = bytearray(whole)
            altered[place] ^= 1 << drawn.randrange(8)
            path.write_bytes(altered)
            loaded = folder.latest(0)
            assert loaded is not None
            # A name in the header that nothing reads may be spelled otherwise; what is read is right or refused.
            assert (loaded.epoch, loaded.state["x"]) in ((1, 1), (2, 2)), place
            if place >= header:
                assert loaded.epoch == 1, place

    def test_an_epoch_altered_in_the_header_is_recognized(self, folder: CheckpointFolder) -> None:
        folder.save(0, checkpoint(2))
        path = Path(folder.lineage_path(0), "000002.ckpt")
        path.write_bytes(path.read_bytes().replace(b'"epoch": 2}\n', b'"epoch": 3}\n'))
        assert folder.latest(0) is None

    def test_a_file_under_the_name_of_another_epoch(self, folder: CheckpointFolder) -> None:
        folder.save(0, checkpoint(2))
        path = Path(folder.lineage_path(0), "000002.ckpt")
        path.rename(path.with_name("000005.ckpt"))
        assert folder.latest(0) is None

    def test_damaged_ones_do_not_push_out_what_is_saved_next(
        self, folder: CheckpointFolder, caplog: pytest.LogCaptureFixture
    ) -> None:
        for epoch in (6, 7):
            folder.save(0, checkpoint(epoch))
        for name in files(folder):
            Path(folder.lineage_path(0), name).write_bytes(b"rubbish")
        with caplog.at_level(logging.WARNING, "hpo"):
            assert folder.latest(0) is None
        assert caplog.text.count("is not used: it is no checkpoint of ours") == 2
        folder.save(0, checkpoint(1))
        loaded = folder.latest(0)
        assert loaded is not None
        assert loaded.epoch == 1


class TestNothingIsUnpickled:
    class Evil:
        """Unpickled, it makes a file."""

        def __init__(self, path: Path) -> None:
            self.path = path

        def __reduce__(self) -> Any:
            return (open, (str(self.path), "w"))

    @staticmethod
    def put(folder: CheckpointFolder, epoch: int, form: str, body: bytes) -> None:
        header = {"format": form, "sha256": hashlib.sha256(body).hexdigest(), "epoch": epoch}
        path = Path(folder.lineage_path(0), f"{epoch:06d}.ckpt")
        path.write_bytes(json.dumps(header).encode() + b"\n" + body)

    def test_a_checkpoint_with_a_right_checksum(self, folder: CheckpointFolder, tmp_path: Path) -> None:
        mark = tmp_path / "executed"
        content = {"state": self.Evil(mark), "history": []}
        zipped, legacy = io.BytesIO(), io.BytesIO()
        torch.save(content, zipped)
        torch.save(content, legacy, _use_new_zipfile_serialization=False)
        bodies = [zipped.getvalue(), legacy.getvalue(), pickle.dumps(content)]
        folder.save(0, checkpoint(1))
        for body in bodies:
            for form in ("torch", "json", "pickle"):
                self.put(folder, 2, form, body)
                loaded = folder.latest(0)
                assert loaded is not None
                assert loaded.epoch == 1
                assert not mark.exists()
        # The bodies do what they say, to whoever unpickles them.
        pickle.loads(bodies[2])["state"].close()
        assert mark.exists()

    @pytest.mark.parametrize("content", [[], {}, {"state": {}}, 5, None])
    def test_other_json(self, folder: CheckpointFolder, content: Any) -> None:
        folder.save(0, checkpoint(1))
        self.put(folder, 2, "json", json.dumps(content).encode())
        loaded = folder.latest(0)
        assert loaded is not None
        assert loaded.epoch == 1


class TestFiles:
    def test_two_of_a_lineage_and_none_in_the_end(self, folder: CheckpointFolder) -> None:
        sizes = []
        for epoch in range(1, 12):
            folder.save(4, checkpoint(epoch, tensor=torch.zeros(1000)))
            folder.save(5, checkpoint(epoch))
            sizes.append(folder.size_bytes())
        assert files(folder, 4) == files(folder, 5) == ["000010.ckpt", "000011.ckpt"]
        on_disk = sum(path.stat().st_size for path in Path(folder.path).rglob("*.ckpt"))
        assert folder.size_bytes() == on_disk
        # 4,000 bytes of weights each, and what torch and the history put around them.
        assert 8_000 < max(sizes) < 16_000
        folder.remove(4)
        assert not Path(folder.lineage_path(4)).exists()
        assert 0 < folder.size_bytes() < 2_000
        folder.remove(5)
        folder.remove(5)
        assert folder.size_bytes() == 0
        folder.remove_all()
        assert not Path(folder.path).exists()

    def test_a_reader_never_sees_a_part(self, folder: CheckpointFolder) -> None:
        stop, sizes = threading.Event(), []

        def read() -> None:
            while not stop.is_set():
                for path in Path(folder.lineage_path(0)).glob("*.ckpt"):
                    with contextlib.suppress(FileNotFoundError):
                        sizes.append(len(path.read_bytes()))

        folder.save(0, checkpoint(1, text="a" * 2_000_000))
        thread = threading.Thread(target=read)
        thread.start()
        epoch = 1
        while len(sizes) < 300:
            epoch += 1
            folder.save(0, checkpoint(epoch, text="a" * 2_000_000))
        stop.set()
        thread.join()
        assert min(sizes) > 2_000_000

    def test_a_writer_killed_half_way_leaves_the_one_before(self, folder: CheckpointFolder, tmp_path: Path) -> None:
        folder.save(0, checkpoint(1))
        # A full disk in the shape of a limit on the size of files: the kernel ends the writer with SIGXFSZ.
        script = (
            "import resource, signal, sys\n"
            "from hpo.files.checkpoints import Checkpoint, CheckpointFolder\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
            "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
            "CheckpointFolder(sys.argv[1], 'key').save(0, Checkpoint(2, {'text': 'a' * 100_000}, []))\n"
        )
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "checkpoints")], capture_output=True)
        assert done.returncode == -25, done.stderr
        left = files(folder)
        assert len(left) == 2
        assert left[0] == "000001.ckpt"
        assert left[1].startswith("000002.ckpt.")
        loaded = folder.latest(0)
        assert loaded is not None
        assert loaded.epoch == 1
        # What was half written takes no disk any more once somebody goes on from there.
        assert files(folder) == ["000001.ckpt"]

    def test_a_disk_that_is_full(self, folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.save(0, checkpoint(1))
        script = (
            "import resource, signal, sys\n"
            "from hpo.files.checkpoints import Checkpoint, CheckpointFolder\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
            "CheckpointFolder(sys.argv[1], 'key').save(0, Checkpoint(2, {'text': 'a' * 100_000}, []))\n"
        )
        done = subprocess.run([sys.executable, "-c", script, str(Path(folder.path).parent)], capture_output=True)
        assert done.returncode == 1
        message = done.stderr.decode().splitlines()[-1]
        assert "CheckpointError: the checkpoint" in message
        assert "000002.ckpt cannot be written: File too large" in message
        assert files(folder) == ["000001.ckpt"]

    def test_a_folder_that_may_not_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        folder = CheckpointFolder(tmp_path / "file", "key")
        with pytest.raises(CheckpointError, match=r"the checkpoint .*000001\.ckpt cannot be written: Not a directory"):
            folder.save(0, checkpoint(1))
        assert folder.latest(0) is None

    def test_a_folder_that_is_removed_under_our_hands(
        self, folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker that was stopped in the middle of a save, while the lineage was ended elsewhere."""
        replace = os.replace

        def late(source: str, target: str) -> None:
            folder.remove(0)
            replace(source, target)

        monkeypatch.setattr(hpo.files.checkpoints.os, "replace", late)
        folder.save(0, checkpoint(1))
        assert folder.size_bytes() == 0


class TestAddresses:
    @pytest.fixture(params=["memory", "file"])
    def root(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/checkpoints"

    def test_the_same_as_a_folder(self, root: str) -> None:
        folder, other = CheckpointFolder(root, "key"), CheckpointFolder(root, "other")
        assert folder.latest(0) is None
        assert folder.size_bytes() == 0
        for epoch in (1, 2, 3):
            folder.save(0, checkpoint(epoch, tensor=torch.arange(4)))
        other.save(0, checkpoint(9))
        again = CheckpointFolder(root, "key")
        loaded = again.latest(0)
        assert loaded is not None
        assert (loaded.epoch, loaded.state["tensor"].tolist()) == (3, [0, 1, 2, 3])
        # Damaged, the one before is used here too.
        files, path = fsspec.core.url_to_fs(f"{root}/key/000000/000003.ckpt")
        files.pipe_file(path, files.cat_file(path)[:-1])
        loaded = again.latest(0)
        assert loaded is not None
        assert loaded.epoch == 2
        assert again.size_bytes() > 0
        again.remove(0)
        assert again.latest(0) is None
        assert again.size_bytes() == 0
        assert other.latest(0) is not None
        other.remove_all()
        assert other.size_bytes() == 0

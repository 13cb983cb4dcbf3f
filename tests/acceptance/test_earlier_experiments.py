"""Starting from earlier experiments with the commands that a person types."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import Hpo


@pytest.mark.release
def test_like_import_and_a_wider_space(hpo_command: Hpo, study: Callable[..., Path], tmp_path: Path) -> None:
    small = study(name="small", samplers='["random"]', budget="trials = 12", seconds=0.0)
    assert hpo_command("launch", str(small), "--workers", "1").returncode == 0
    wide = study(name="wide", samplers='["tpe"]', budget="trials = 4", seconds=0.0)
    wide.write_text(wide.read_text().replace("high = 0.99", "high = 0.995").replace("[32, 64]", "[32, 64, 128]"))
    done = hpo_command("launch", str(wide), "--workers", "1", "--like", "small", "--import", "small")
    assert done.returncode == 0, done.stderr
    assert "first trials: the best of small (value " in done.stderr
    assert "12 finished trials of small imported into wide, known to tpe" in done.stderr

    (tmp_path / "known.csv").write_text("lr,beta,batch_size,value\n0.1,0.9,32,99\n0.1,0.9,31,99\n")
    imported = hpo_command("import", "known.csv", "--into", "wide")
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.strip() == (
        "1 finished trial of known.csv imported into wide, known to tpe; "
        "left out: 1 because batch_size is none of its choices"
    )
    status = json.loads(hpo_command("status", "wide", "--json").stdout)["studies"][0]
    assert (status["knowledge"], status["states"]["complete"], status["best"]["value"] < 2) == (13, 4, True)
    assert "13 imported trials inform its sampler" in hpo_command("status", "wide").stdout
    assert "99" not in hpo_command("export", "wide").stdout.partition("[provenance")[0]
    compared = hpo_command("compare", "wide").stdout
    assert "Imported trials informed tpe (13)" in compared
    assert "configurations of small, counted in the budget" in compared

    for arguments, message, code in (
        (("import", "known.csv", "--into", "nothing"), "there is no experiment 'nothing'", 1),
        (("import", "nothing", "--into", "wide"), "there is no experiment 'nothing'", 1),
        (("import", "nothing.csv", "--into", "wide"), "cannot be read", 2),
        (("launch", str(study(name="next", seconds=0.0)), "--like", "smal"), "did you mean 'small'", 1),
    ):
        refused = hpo_command(*arguments)
        assert refused.returncode == code
        assert message in refused.stderr

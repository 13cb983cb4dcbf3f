"""What is made of a comparison: JSON, tables, figures, CSV, a page; several experiments."""

import csv
import io
import json
import math

import pytest
from rich.console import Console

from hpo.compare import figures, output, report, tables
from hpo.compare.comparison import compare_studies
from hpo.compare.publish import IDS, figure_json, note
from hpo.compare.render import plotly_script, script_json
from hpo.compare.stats import Interval
from hpo.compare.tasks import compare_tasks, groups_within
from hpo.errors import ExperimentError
from tests.unit.compare.test_curves import repeats

RANDOM = [0.70, 0.71, 0.72, 0.70, 0.73, 0.71, 0.70, 0.72]
WEIRD = "</script><img src=x onerror=alert(1)>|\"'漢/字"


def comparison(**options):
    tpe = [value + 0.05 + 0.001 * i for i, value in enumerate(RANDOM)]
    return compare_studies(repeats("random", RANDOM, **options) + repeats("tpe", tpe, **options))


def test_json_has_everything_and_no_infinities():
    content = json.loads(output.dumps(comparison(study_file={"target": 0.74})))
    assert content["experiment"] == "e"
    assert content["direction"] == "maximize"
    assert content["verdict"].startswith("tpe is better than random by 0.0535 (95 %: ")
    tpe = content["samplers"]["tpe"]
    assert tpe["curves"]["trials"]["x"] == [1, 2]
    assert tpe["curves"]["trials"]["median"][0] == 0.1
    assert {"median_low", "median_high", "iqm", "iqm_low", "iqm_high"} <= tpe["curves"]["epochs"].keys()
    assert tpe["final"]["n"] == 8
    assert tpe["final"]["values"]["0"] == 0.75
    assert tpe["cost"]["epochs"] == 32
    assert content["samplers"]["random"]["target"]["expected"]["trials"]["value"] is None  # never reached
    pair = content["pairwise"][0]
    assert (pair["first"], pair["second"], pair["verdict"]) == ("random", "tpe", "worse")
    assert pair["p_value"] == pytest.approx(2 / 12_870)
    assert pair["probability"]["value"] == 0.0
    assert 0 < pair["smallest_difference"] < 0.02
    assert pair["interval"]["low"] < pair["difference"] < pair["interval"]["high"]
    assert content["noise"] is None
    assert content["importance"] == {"random": {}, "tpe": {}}


def test_cells():
    assert tables.text(0.98712345) == "0.9871"
    assert tables.text(12345) == "12,345"
    assert tables.text(None) == "–"
    assert tables.text(math.inf) == "not reached"
    assert tables.text(Interval(0.94123, 0.95456)) == "[0.941, 0.955]"
    assert tables.text(Interval(0.5, math.inf)) == "[0.5, not reached]"


def test_terminal_shows_verdicts_and_tables():
    out = io.StringIO()
    output.print_tables(report.Report((comparison(),)), Console(file=out, width=160))
    text = out.getvalue()
    assert "random is worse than tpe by 0.0535 (p = 0.00016)" in text
    for title in ("Final values", "Pairwise", "Spent by each sampler", "Share of random's budget"):
        assert title in text


def test_csv_files(tmp_path):
    written = output.write_csv(report.Report((comparison(),)), tmp_path / "tables")
    assert {path.name for path in written} == {
        "e-samplers.csv",
        "e-pairs.csv",
        "e-cost.csv",
        "e-speed_up.csv",
        "e-final.csv",
        "e-curves.csv",
    }
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tables" / "e-samplers.csv").read_text())))
    assert rows[1]["sampler"] == "tpe"
    assert float(rows[1]["mean best 95 % low"]) < float(rows[1]["mean best"]) < float(rows[1]["mean best 95 % high"])
    curves = list(csv.DictReader(io.StringIO((tmp_path / "tables" / "e-curves.csv").read_text())))
    assert [row["median"] for row in curves if row["sampler"] == "random" and row["axis"] == "trials"] == [
        "0.1",
        "0.71",
    ]


def test_a_page_stands_alone_and_escapes_names(tmp_path):
    found = comparison()
    studies = repeats("random", RANDOM) + repeats(WEIRD, RANDOM)
    output.write_html(report.Report((found, compare_studies(studies))), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    for outside in ('src="http', "src='http", 'href="http', "url(http"):
        assert outside not in page.replace(plotly_script(), "")
    assert "</script>" not in script_json({WEIRD: WEIRD})


def test_carried_values_are_dotted():
    short = repeats("tpe", [0.8, 0.9])
    long = repeats("random", [0.5, 0.6])
    long = [type(s)(**{**s.__dict__, "trials": (*s.trials, *extra(s))}) for s in long]
    figure = figures.curves(compare_studies(short + long), "trials")
    dotted = [trace for trace in figure["data"] if trace["line"].get("dash") == "dot"]
    assert [(trace["name"], trace["x"]) for trace in dotted] == [("tpe, ended", [2, 3, 4])]


def extra(study):
    last = study.trials[-1]
    return [type(last)(**{**last.__dict__, "number": n, "lineage": n, "end": float(n)}) for n in (2, 3)]


def test_nothing_finished_draws_a_sentence():
    empty = compare_studies(
        [type(s)(**{**s.__dict__, "trials": ()}) for s in repeats("tpe", [0.1]) + repeats("random", [0.1])]
    )
    for figure in figures.all_figures(empty).values():
        assert figure["data"] == []
        assert figure["layout"]["annotations"][0]["text"] == "No finished trial yet"


def named(name, shift, samplers=("random", "tpe", "grid")):
    studies = []
    for i, sampler in enumerate(samplers):
        for s in repeats(sampler, [0.5 + shift + 0.1 * i, 0.52 + shift + 0.1 * i]):
            studies.append(type(s)(**{**s.__dict__, "experiment": name}))
    return compare_studies(studies)


def test_ranks_over_experiments():
    two = compare_tasks([named("a", 0.0), named("b", 0.1)])
    assert two.ranks == {"grid": 1.0, "tpe": 2.0, "random": 3.0}
    assert two.critical_difference is None
    five = compare_tasks([named(name, 0.01 * i) for i, name in enumerate("abcde")])
    # q(0.05, 3) = 2.343: 2.343 * sqrt(3 * 4 / (6 * 5)).
    assert five.critical_difference == pytest.approx(1.482, abs=1e-3)
    assert five.groups == (("grid", "tpe"), ("tpe", "random"))
    drawn = figures.critical_difference(five)
    assert [trace["name"] for trace in drawn["data"]] == ["average rank", *["no significant difference"] * 2]
    content = output.to_json(report.Report((named("a", 0.0), named("b", 0.1)), two))
    assert content["tasks"]["ranks"]["grid"] == 1.0
    assert content["experiments"].keys() == {"a", "b"}


def test_groups_are_the_largest_runs():
    ranks = {"a": 1.0, "b": 1.5, "c": 2.0, "d": 4.0}
    assert groups_within(ranks, 1.0) == (("a", "b", "c"),)
    assert groups_within(ranks, 0.4) == ()


def test_ranks_need_shared_samplers():
    with pytest.raises(ExperimentError, match="need two samplers"):
        compare_tasks([named("a", 0.0, ("random", "tpe")), named("b", 0.0, ("random", "grid"))])


def test_published_figures_stay_small_with_many_points():
    studies = [
        type(s)(**{**s.__dict__, "trials": tuple(many(s, 400))})
        for sampler in ("grid", "random", "tpe", "qmc", "gp", "cmaes")
        for s in repeats(sampler, [0.5, 0.6, 0.7])
    ]
    found = compare_studies(studies)
    for key in IDS:
        assert len(figure_json(found, key).to_json()) < 50_000


def many(study, count):
    last = study.trials[-1]
    values = [{"number": n, "lineage": n, "end": float(n), "value": 0.3 + 0.001 * n + 0.1234567} for n in range(count)]
    return [type(last)(**{**last.__dict__, **value}) for value in values]


def test_notes_link_to_the_pages_and_escape_markdown():
    text = note(compare_studies(repeats("random", RANDOM) + repeats("t|p<e>", RANDOM)), "e/random/0")
    assert "/hpo/experiment?name=e" in text
    assert "/dashboard/compare-studies?ids=" in text
    assert "t\\|p\\<e\\>" in text

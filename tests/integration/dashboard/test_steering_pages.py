"""The pages of trials, workers and steering over a socket, without a script; steering by two, away, logged out."""

import re
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from hpo.cli.dashboard import exporter
from hpo.dashboard.server import Server, make_access, make_app
from hpo.database import workers
from hpo.experiment import steering
from hpo.experiment.experiment import create_experiment
from hpo.settings import Settings
from hpo.studyfile.load import parse_study_file
from hpo.trainers.loading import load_trainers
from tests.integration.dashboard_support import Browser, serve_fixture  # noqa: F401

load_trainers("")

NAME = "steered one"
TABLE = {
    "name": NAME,
    "trainer": "program",
    "command": ["train", "--lr", "{lr}", "--act", "{act}"],
    "metric": "loss",
    "direction": "minimize",
    "samplers": ["random", "tpe"],
    "pruner": "none",
    "budget": {"trials": 6000},
    "space": {"lr": {"low": 0.001, "high": 1.0, "log": True}, "act": ["relu", "<b>'tanh' 🚀</b>"]},
}
FILL = """
WITH new AS (
  INSERT INTO trials (study_id, number, state, datetime_start, datetime_complete)
  SELECT :s, n, CAST(CASE WHEN n % 7 = 3 THEN 'FAIL' WHEN n % 5 = 1 THEN 'PRUNED' ELSE 'COMPLETE' END AS trialstate),
    now() AT TIME ZONE 'UTC' - interval '1 minute', now() AT TIME ZONE 'UTC' FROM generate_series(0, :n - 1) AS n
  RETURNING trial_id, number, state::text AS state),
own AS (INSERT INTO hpo_trials (trial_id, study_id, lineage, attempt) SELECT trial_id, :s, number, 0 FROM new),
val AS (INSERT INTO trial_values (trial_id, objective, value, value_type)
  SELECT trial_id, 0, 1.0 / (1 + number), 'FINITE' FROM new WHERE state <> 'FAIL'),
lr AS (INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
  SELECT trial_id, 'lr', 0.001 + number / 10000.0,
    '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 1.0, "log": true}}' FROM new),
act AS (INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
  SELECT trial_id, 'act', number % 2, :act FROM new),
steps AS (INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
  SELECT trial_id, step, 1.0 / step, 'FINITE' FROM new, generate_series(1, 3) AS step)
INSERT INTO trial_user_attributes (trial_id, key, value_json)
  SELECT trial_id, 'reason', '"ValueError: <script>alert(1)</script> 100%"' FROM new WHERE state = 'FAIL'
  UNION ALL SELECT trial_id, 'epochs', '3' FROM new UNION ALL SELECT trial_id, 'worker', '"node:1:2:x"' FROM new
"""


@pytest.fixture(name="experiment")
def experiment_fixture(storage):
    made = create_experiment(storage, parse_study_file(TABLE, "study.toml"))[0]
    fill(made, 40)
    return made


def fill(experiment, count):
    """Ended trials of each study."""
    act = '{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "<b>\'tanh\' \\ud83d\\ude80</b>"]}}'
    with experiment.storage.engine.begin() as connection:
        for study_id in experiment.study_ids:
            connection.execute(sa.text(FILL.replace('": ', '"\\: ')), {"s": study_id, "n": count, "act": act})


def path(place, /, **values):
    return f"/hpo/{place}?{urlencode({'name': NAME, **values}, doseq=True)}"


def post(browser, **values):
    form = urlencode({"name": NAME, **values}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
    return browser.ask("POST", "/hpo/steer", form, headers=headers)


def test_the_table_filters_sorts_and_searches(serve, experiment) -> None:
    browser = serve()
    whole = browser.get(path("trials"))
    assert whole.status == 200
    assert "80 trials" in whole.text
    assert "<b>'tanh'" not in whole.text
    assert "<script>alert" not in whole.text
    assert "12 trials" in browser.get(path("trials", state="failed")).text
    assert "6 trials" in browser.get(path("trials", state="failed", sampler="tpe")).text
    assert "12 trials" in browser.get(path("trials", search="valueerror")).text
    assert "12 trials" in browser.get(path("trials", search="100%")).text
    assert "0 trials" in browser.get(path("trials", search="100_")).text
    assert "10 trials" in browser.get(path("trials", search="lr<0.0015")).text
    assert "40 trials" in browser.get(path("trials", search="act=relu")).text
    assert "2 trials" in browser.get(path("trials", search="#7")).text
    assert "did you mean &#39;lr&#39;" in browser.get(path("trials", search="lrr<1")).text
    best = browser.get(path("trials", sort="value", sampler="random")).text
    rows = best[best.index("<tbody>") :]
    assert rows.index(">39</a>") < rows.index(">37</a>")
    columns = browser.get(path("trials", column=["state", "param:act"])).text
    assert 'data-label="act"' in columns
    assert 'data-label="epochs"' not in columns


def test_csv_has_every_column_and_no_formulas(serve, experiment) -> None:
    answer = serve().get(path("trials.csv", state="failed", sampler="tpe"))
    lines = answer.text.splitlines()
    assert lines[0] == "trial,number,state,value,sampler,repeat,epochs,time,reason,attempt,worker,began,lr,act"
    assert len(lines) == 7
    assert lines[1].startswith("tpe/0/3,3,failed,,tpe,0,3,")
    assert lines[1].endswith("<b>'tanh' 🚀</b>")


def test_many_trials_come_in_pages(serve, experiment) -> None:
    with experiment.storage.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM hpo_trials"))
        connection.execute(sa.text("DELETE FROM trial_values"))
        for table in ("trial_params", "trial_intermediate_values", "trial_user_attributes", "trials"):
            connection.execute(sa.text(f"DELETE FROM {table}"))
    fill(experiment, 125)
    browser = serve()
    for values in ({}, {"page": 2}, {"sort": "param:lr", "desc": 1}, {"sort": "epochs"}, {"search": "valueerror"}):
        assert browser.get(path("trials", **values)).status == 200
    assert "page 3 of 3" in browser.get(path("trials", page=10**6)).text


def test_the_count_names_the_states_and_the_time_is_the_workers(serve, experiment) -> None:
    page = serve().get(path("trials")).text
    found = re.search(r"([0-9,]+) trials \(([^)]*)\)", page)
    assert found is not None
    counts = dict(part.split(" ")[::-1] for part in found[2].split(", "))
    assert sum(int(number) for number in counts.values()) == int(found[1].replace(",", ""))
    assert {"complete", "failed"} <= counts.keys()
    assert ">worker-time" in page


def test_the_page_of_a_trial(serve, experiment) -> None:
    browser = serve()
    page = browser.get(path("trial", trial="tpe/0/3"))
    assert page.status == 200
    for expected in ("Why it ended: ValueError: &lt;script&gt;", "<svg", "node:1:2:x", "Attempts", "Retry", "act"):
        assert expected in page.text
    assert browser.get(path("trial", trial="tpe/0/4000000000000")).status == 404
    assert browser.get(path("trial", trial="nothing")).status == 400


def test_each_order_is_asked_for_and_then_done(serve, experiment) -> None:
    browser = serve()
    for action, halt in (("pause", "paused"), ("resume", None), ("stop", "stopped")):
        asked = browser.get(path("steer", action=action)).text
        assert 'method="post"' in asked
        seen = asked.partition('name="expected" value="')[2].partition('"')[0]
        assert post(browser, action=action, expected=seen).status == 303
        assert steering.order_of(experiment).halt == halt
    assert "stopped" in browser.get(path("steering")).text
    assert post(browser, action="extend", trials="+5").status == 303
    refused = post(browser, action="extend", trials="3")
    assert refused.status == 400
    assert "not more than the 6005" in refused.text
    form = {"action": "enqueue", "param:lr": "0.5", "param:act": "<b>'tanh' 🚀</b>"}
    assert "in random/0, tpe/0" in browser.get(path("steer", **form)).text
    assert post(browser, **form).status == 303
    assert post(browser, **form).status == 409
    assert "expected a number from 0.001" in browser.get(path("steer", **{**form, "param:lr": "2"})).text
    assert post(browser, action="retry", trial="tpe/0/3").status == 303
    assert post(browser, action="retry", trial="tpe/0/3").status == 409
    assert post(browser, action="prune", trial="tpe/0/0").status == 409
    events = browser.get(path("steering")).text
    assert "enqueued: lr=0.5 act=&lt;b&gt;" in events
    assert post(browser, action="delete", sure="another").status == 409
    assert post(browser, action="delete", sure=NAME).status == 303
    assert browser.get(path("steering")).status == 404
    assert post(browser, action="stop").status == 404


def test_who_steers_meanwhile_is_asked_again(serve, experiment) -> None:
    browser = serve()
    seen = browser.get(path("steer", action="stop")).text.partition('name="expected" value="')[2].partition('"')[0]
    steering.pause(experiment, who="ann")
    answer = post(browser, action="stop", expected=seen)
    assert answer.status == 409
    assert "paused by ann" in answer.text
    assert steering.order_of(experiment).halt == "paused"
    seen = answer.text.partition('name="expected" value="')[2].partition('"')[0]
    assert post(browser, action="stop", expected=seen).status == 303


def test_read_only_has_no_buttons_and_takes_no_orders(serve, experiment) -> None:
    browser = serve(read_only=True)
    for page in ("steering", "experiment", "trial"):
        assert "action=stop" not in browser.get(path(page, trial="tpe/0/3")).text
    assert 'method="post" action="/hpo/steer"' not in browser.get(path("steer", action="stop")).text
    assert post(browser, action="stop").status == 403
    assert steering.order_of(experiment).halt is None


def test_an_expired_login_changes_nothing_and_leads_back(serve, experiment) -> None:
    browser = serve(password="secret")
    form = urlencode({"name": NAME, "action": "stop"}).encode()
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "text/html,*/*",
        "Referer": f"http://127.0.0.1:{browser.port}{path('steer', action='stop')}",
    }
    answer = browser.ask("POST", "/hpo/steer", form, headers=headers)
    assert answer.status == 303
    where = answer.getheader("Location")
    assert where.startswith("/hpo/login?next=%2Fhpo%2Fsteer")
    assert "nothing was changed" in browser.get(where).text
    assert steering.order_of(experiment).halt is None


def test_the_workers(serve, experiment) -> None:
    assert "No worker is alive" in serve().get(path("workers")).text
    report = '{"host": "node<1>", "pid": 7, "device": "cpu", "slots": 2, "cpu_percent": 90, "last_lines": "<i>x"}'
    with experiment.storage.engine.begin() as connection:
        workers.write_report(connection, experiment.study_ids, "w", "trains", report)
    page = serve().get(path("workers")).text
    assert "node&lt;1&gt;" in page
    assert "&lt;i&gt;x" in page
    assert "CPU 90 %" in page


def test_an_order_from_the_page_while_the_database_is_away_says_that_nothing_was_changed(
    stoppable, stoppable_storage, tmp_path
) -> None:
    experiment = create_experiment(stoppable_storage, parse_study_file({**TABLE, "name": "page-away"}, "study.toml"))[0]
    settings = Settings(home=tmp_path)
    access = make_access("127.0.0.1")
    app = make_app(stoppable_storage, tmp_path, access, exporter(stoppable_storage, settings), settings)
    server = Server(app, "127.0.0.1", 0)
    thread = server.start()
    try:
        stoppable.stop()
        try:
            answer = post(Browser(server.port), name="page-away", action="stop")
        finally:
            stoppable.start()
        assert answer.status == 503
        assert "nothing was changed" in answer.text
        assert steering.order_of(experiment).halt is None
    finally:
        server.close()
        thread.join(5)

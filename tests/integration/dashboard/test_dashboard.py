"""The dashboard's pages over real HTTP: what they answer, to hostile names, empty experiments, a lost database."""

import json
import time
from urllib.parse import urlencode

import optuna
import sqlalchemy as sa

from tests.integration.dashboard_support import serve_fixture  # noqa: F401
from tests.searches import fill

WEIRD = "a\"b<i>'&/ü漢 %2f"


def test_pages_and_optunas_dashboard_share_the_server(storage, serve):
    ids = fill(storage, "digits", repeats=2, trials=6)
    browser = serve()
    assert browser.get("/").getheader("Location").endswith("/hpo/")
    page = browser.get("/hpo/")
    assert page.status == 200
    assert "/hpo/experiment?name=digits" in page.text
    assert "36 of 36 trials" in page.text
    assert browser.get("/dashboard").status == 200
    assert browser.get(f"/api/studies/{ids[0]}").status == 200
    assert json.loads(browser.get("/api/meta").content)["artifact_is_available"] is True
    assert len(browser.get("/static/bundle.js").content) > 1_000_000
    assert len(browser.get("/hpo/static/plotly.js").content) > 1_000_000
    assert browser.get("/hpo/static/..%2fpages.py").status == 404
    page = browser.get("/hpo/experiment?name=digits")
    for part in ("Verdict", "Best so far", "Final values", "Pairwise differences", "Spent by each sampler"):
        assert part in page.text
    assert f"/dashboard/compare-studies?ids={','.join(map(str, ids))}" in page.text
    assert all(f'href="/dashboard/studies/{i}"' in page.text for i in ids)


def test_polls_are_answered_shortly_until_something_changes(storage, serve):
    ids = fill(storage, "digits", repeats=2, trials=6, finished=3)
    browser = serve()
    first = json.loads(browser.get("/hpo/api/experiment?name=digits&have=").content)
    assert first["live"] is True
    assert {"curve_trials_median", "curve_seconds_iqm", "final", "pairs"} <= first["figures"].keys()
    again = json.loads(browser.get(f"/hpo/api/experiment?name=digits&have={first['token']}").content)
    assert again == {"token": first["token"], "unchanged": True}
    study = optuna.load_study(study_name="digits/tpe/0", storage=storage)
    assert study._study_id in ids
    # A finished trial that a person adds is no result of the search, whatever attributes it has.
    study.add_trial(optuna.trial.create_trial(value=0.999, user_attrs={"lineage": 3, "epochs": 5, "config": {"lr": 7}}))
    (running,) = [trial for trial in study.trials if trial.state.name == "RUNNING"]
    storage.set_trial_state_values(running._trial_id, optuna.trial.TrialState.COMPLETE, [0.998])
    for _ in range(50):
        changed = json.loads(browser.get(f"/hpo/api/experiment?name=digits&have={first['token']}").content)
        if not changed.get("unchanged"):
            break
        time.sleep(0.05)
    assert changed["token"] != first["token"]
    assert "0.998" in changed["sections"]["configs"]
    assert "0.999" not in json.dumps(changed["sections"])
    assert "1 finished trial added by hand" in json.dumps(changed["sections"])


def test_everything_as_json(storage, serve):
    fill(storage, "digits", repeats=2, trials=6)
    answer = serve().get("/hpo/api/comparison?name=digits")
    assert json.loads(answer.content)["samplers"].keys() == {"grid", "random", "tpe"}
    assert answer.getheader("Content-Disposition").startswith("attachment;")


def test_names_that_are_not_harmless(storage, serve):
    ids = fill(storage, WEIRD, repeats=2, trials=6)
    browser = serve()
    listed = browser.get("/hpo/").text
    assert "a&#34;b&lt;i&gt;&#39;&amp;/ü漢 %2f" in listed
    assert "b<i>" not in listed
    link = f"/hpo/experiment?{urlencode({'name': WEIRD})}"
    assert link.replace("&", "&amp;") in listed
    page = browser.get(link)
    assert page.status == 200
    assert "b<i>" not in page.text
    data = browser.get(f"/hpo/api/experiment?{urlencode({'name': WEIRD})}&have=")
    assert all("b<i>" not in html for html in json.loads(data.content)["sections"].values())
    csv = browser.get(f"/csv/{ids[0]}")
    assert csv.status == 200
    assert csv.text.startswith("Number,State")
    assert browser.get(f"/api/studies/{ids[0]}").status == 200


def test_unknown_experiments_show_the_near_miss(storage, serve):
    fill(storage, "digits", repeats=1, trials=2)
    browser = serve()
    page = browser.get("/hpo/experiment?name=digit")
    assert page.status == 404
    assert "did you mean &#39;digits&#39;?" in page.text
    assert browser.get("/hpo/api/experiment?name=%3Cb%3E").status == 404
    assert "<b>" not in browser.get("/hpo/experiment?name=%3Cb%3E").text.replace("<body", "")
    assert browser.get("/hpo/nothing").status == 404
    assert browser.get("/hpo/best?name=digits&sampler=tpe&format=exe").status == 400


def test_experiments_without_finished_trials_and_with_one_repeat(storage, serve):
    fill(storage, "empty", repeats=1, trials=2, finished=0)
    fill(storage, "once", repeats=1, trials=5)
    browser = serve()
    assert "No trial has finished yet" in browser.get("/hpo/experiment?name=empty").text
    assert "repeats of both and has 1; so far" in browser.get("/hpo/experiment?name=once").text
    assert browser.get("/hpo/").text.count("not started") == 0


def test_incomparable_studies_say_so(storage, serve):
    fill(storage, "odd", samplers=("random", "tpe"), repeats=1, trials=2)
    study = optuna.load_study(study_name="odd/tpe/0", storage=storage)
    study.set_user_attr("hpo:study_file", {**study.user_attrs["hpo:study_file"], "metric": "val_loss"})
    page = serve().get("/hpo/experiment?name=odd")
    assert page.status == 404
    assert "differ in their metric: val_accuracy and val_loss" in page.text


def test_the_database_may_go_away_and_come_back(storage, serve, address):
    fill(storage, "digits", repeats=1, trials=2)
    browser = serve()
    assert browser.get("/hpo/experiment?name=digits").status == 200
    # Nobody may connect and those who are connected are thrown out: to a client, a server that is gone.
    name = sa.engine.make_url(address).database
    engine = sa.create_engine(sa.engine.make_url(address).set(database="postgres"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
            connection.execute(
                sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n"), {"n": name}
            )
            time.sleep(0.6)
            gone = browser.get("/hpo/api/experiment?name=digits&have=")
            assert gone.status == 503
            assert json.loads(gone.content)["error"].startswith("the database does not answer")
            page = browser.get("/hpo/experiment?name=digits")
            assert page.status == 503
            assert "The database cannot be reached" in page.text
            connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    finally:
        engine.dispose()
    assert browser.get("/hpo/api/experiment?name=digits&have=").status == 200
    assert browser.get("/hpo/experiment?name=digits").status == 200

"""The dashboard's pages over real HTTP: what they answer, to hostile names, empty experiments, a lost database."""

import json
import re
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
    for part in ("Best so far", "Learning curves", "Final values", "Differences", "Best configuration"):
        assert part in page.text
    assert "Not decided by the test:" in page.text
    assert f"/dashboard/compare-studies?ids={','.join(map(str, ids))}" in page.text
    assert all(f'href="/dashboard/studies/{i}"' in page.text for i in ids)


def test_polls_are_answered_shortly_until_something_changes(storage, serve):
    ids = fill(storage, "digits", repeats=2, trials=6, finished=3)
    browser = serve()
    first = json.loads(browser.get("/hpo/api/experiment?name=digits&have=").content)
    assert first["live"] is True
    again = json.loads(browser.get(f"/hpo/api/experiment?name=digits&have={first['token']}").content)
    assert again.keys() == {"token", "unchanged", "live", "sections"}
    assert again["sections"].keys() == {"progress"}  # it moves by itself; nothing else does
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


FIGURES = ("learning", "parallel", "importance", "contour", "final", "pairs", "param:lr", "param:width")
CURVES = tuple(
    f"curve_{axis}_{statistic}_{scale}"
    for axis in ("trials", "epochs", "seconds", "wall")
    for statistic in ("median", "iqm")
    for scale in ("value", "distance")
)


def figure(browser, name, key, scope=""):
    query = urlencode({"name": name, "figure": key, "scope": scope})
    answer = browser.get(f"/hpo/api/figure?{query}")
    assert answer.status == 200, answer.text
    return json.loads(answer.content)


def test_every_figure_of_all_of_a_sampler_and_of_a_study(storage, serve):
    ids = fill(storage, "digits", repeats=3, trials=25)
    browser = serve()
    for scope in ("", "sampler:tpe", f"study:{ids[-1]}"):
        for key in (*FIGURES, *CURVES):
            found = figure(browser, "digits", key, scope)
            assert found["figure"]["data"], (key, scope)
            assert found["tables"] or key == "importance"
    names = [trace["name"] for trace in figure(browser, "digits", "param:lr")["figure"]["data"]]
    assert names == ["pruned", "grid", "random", "tpe", "best"]
    names = [trace["name"] for trace in figure(browser, "digits", "param:lr", "sampler:tpe")["figure"]["data"]]
    assert set(names) <= {"pruned", "tpe", "best"}
    assert browser.get("/hpo/api/figure?name=digits&figure=learning&scope=sampler:nobody").status == 400
    assert browser.get("/hpo/api/figure?name=digits&figure=unknown&scope=").status == 400


def test_one_finished_trial_is_enough_for_every_figure(storage, serve):
    fill(storage, "one", samplers=("random",), repeats=1, trials=20, finished=1)
    browser = serve()
    page = browser.get("/hpo/experiment?name=one").text
    words = re.sub(r"<[^>]*>", " ", page).lower()
    for word in ("test takes", "p =", "repeat", "chance", "verdict", "noise floor"):
        assert word not in words, word
    for key in ("learning", "parallel", "contour", "param:lr", "param:width", "curve_trials_median_value"):
        drawn = figure(browser, "one", key)["figure"]["data"]
        assert any(value is not None for trace in drawn for value in trace["y"]), key
    text = figure(browser, "one", "importance")["figure"]["layout"]["annotations"][0]["text"]
    assert text == "Importance takes 20 complete trials of one sampler; so far there is 1"


def test_tables_hold_what_the_figures_show_without_a_script(storage, serve):
    fill(storage, "digits", repeats=2, trials=6)
    browser = serve()
    assert "<noscript>" in browser.get("/hpo/experiment?name=digits").text
    page = browser.get("/hpo/tables?name=digits").text
    for caption in ("Final values", "Pairwise", "Spent by each sampler", "The best 20 trials", "wall-clock"):
        assert caption in page


def test_the_way_back_from_optunas_pages(storage, serve):
    ids = fill(storage, WEIRD, samplers=("random",), repeats=1, trials=2)
    browser = serve()
    assert 'id="hpo-back" href="/hpo/from-optuna"' in browser.get("/dashboard").text

    def leads_to(path):
        referer = {"Referer": f"http://127.0.0.1:{browser.port}{path}"}
        return browser.get("/hpo/from-optuna", headers=referer).getheader("Location")

    assert leads_to(f"/dashboard/studies/{ids[0]}/trials").endswith(f"/hpo/experiment?{urlencode({'name': WEIRD})}")
    assert leads_to("/dashboard/studies/999999").endswith("/hpo/")
    assert leads_to("/dashboard").endswith("/hpo/")


def test_an_experiment_that_is_deleted_while_its_page_is_open(storage, serve):
    fill(storage, "digits", samplers=("random",), repeats=1, trials=3, finished=1)
    browser = serve()
    token = json.loads(browser.get("/hpo/api/experiment?name=digits&have=").content)["token"]
    optuna.delete_study(study_name="digits/random/0", storage=storage)
    time.sleep(0.6)
    answer = browser.get(f"/hpo/api/experiment?name=digits&have={token}")
    assert answer.status == 404
    assert json.loads(answer.content)["error"].startswith("there is no experiment 'digits'")
    assert browser.get("/hpo/api/figure?name=digits&figure=learning&scope=").status == 404


def test_the_list_has_date_duration_state_and_best(storage, serve):
    fill(storage, "digits", repeats=2, trials=6)
    page = serve().get("/hpo/").text
    assert "2026-03-01 1" in page
    assert 'data-label="duration"' in page
    assert '<span class="chip finished">finished</span>' in page
    assert 'data-words="digits val_accuracy grid random tpe finished"' in page


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
    assert "in one repeat of each, which may be chance" in browser.get("/hpo/experiment?name=once").text
    assert browser.get("/hpo/").text.count('<span class="chip stopped">') == 1  # a trial of it runs, and no worker does


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

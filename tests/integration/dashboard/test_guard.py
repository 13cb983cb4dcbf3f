"""Who gets into the dashboard, from where, to do what, over real HTTP; and artifacts, which anyone's code wrote."""

import json
import socket
from contextlib import closing
from urllib.parse import quote, urlencode

import optuna
import pytest
import sqlalchemy as sa
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from hpo.cli.dashboard import password
from hpo.dashboard.login import TRIES_IN_ALL, WINDOW_SECONDS, Tries
from hpo.dashboard.login_pages import local_path
from hpo.dashboard.server import Server, make_access
from hpo.errors import DashboardError
from tests.integration.dashboard_support import serve_fixture  # noqa: F401
from tests.searches import fill


def test_every_answer_has_the_security_headers(storage, serve):
    browser = serve()
    for path in ("/hpo/", "/dashboard", "/api/studies", "/hpo/static/app.css", "/nothing", "/hpo/nothing"):
        answer = browser.get(path)
        assert answer.getheader("X-Content-Type-Options") == "nosniff", path
        assert answer.getheader("X-Frame-Options") == "DENY", path
        assert answer.getheader("Referrer-Policy") == "same-origin", path
        policy = answer.getheader("Content-Security-Policy")
        assert "frame-ancestors 'none'" in policy, path
        assert "http" not in policy, path
        assert answer.getheader("Access-Control-Allow-Origin") is None, path
    assert "unsafe-eval" not in browser.get("/hpo/").getheader("Content-Security-Policy")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:80", "[", "10.0.0.1"]
)
def test_wrong_hosts_are_refused(storage, serve, host):
    browser = serve()
    for path in ("/hpo/", "/api/studies", "/hpo/static/app.css"):
        assert browser.get(path, host=host).status in (400, 421)


def test_configured_hosts_are_known(storage, serve):
    browser = serve(allowed_hosts=["hpo.example"])
    assert browser.get("/hpo/", host="hpo.example").status == 200
    assert browser.get("/hpo/", host="HPO.example:8443").status == 200
    assert browser.get("/hpo/", host="localhost:1").status == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://127.0.0.1:1", "https://127.0.0.1", "http://127.0.0.1.evil.example"],
)
def test_changes_from_elsewhere_are_refused(storage, serve, origin):
    ids = fill(storage, "digits", repeats=1, trials=2)
    browser = serve()
    new = {"study_name": "forged", "directions": ["minimize"]}
    assert browser.ask("POST", "/api/studies", new, origin=origin).status == 403
    assert browser.ask("DELETE", f"/api/studies/{ids[0]}", origin=origin).status == 403
    assert browser.ask("PUT", f"/api/studies/{ids[0]}/note", {"version": 1, "body": "x"}, origin=origin).status == 403
    assert len(storage.get_all_studies()) == 3


def test_changes_from_its_own_pages_are_taken(storage, serve):
    browser = serve()
    assert browser.ask("POST", "/api/studies", {"study_name": "mine", "directions": ["minimize"]}).status == 201
    assert [study.study_name for study in storage.get_all_studies()] == ["mine"]
    referer = {"Referer": f"http://127.0.0.1:{browser.port}/dashboard"}
    new = {"study_name": "mine too", "directions": ["minimize"]}
    assert browser.ask("POST", "/api/studies", new, origin="", headers=referer).status == 201
    assert browser.ask("TRACE", "/api/studies").status == 405


def test_read_only_changes_nothing(storage, serve):
    ids = fill(storage, "digits", repeats=1, trials=2)
    trial = storage.get_all_trials(ids[0])[0]._trial_id
    browser = serve(read_only=True)
    before = [(s.study_name, s.system_attrs, s.user_attrs) for s in storage.get_all_studies()]
    for method, path in (
        ("POST", "/api/studies"),
        ("POST", f"/api/studies/{ids[0]}/rename"),
        ("DELETE", f"/api/studies/{ids[0]}"),
        ("PUT", f"/api/studies/{ids[0]}/note"),
        ("PUT", f"/api/studies/{ids[0]}/{trial}/note"),
        ("POST", f"/api/trials/{trial}/tell"),
        ("POST", f"/api/trials/{trial}/user-attrs"),
        ("POST", f"/api/studies/{ids[0]}/preference"),
        ("POST", f"/api/artifacts/{ids[0]}"),
        ("POST", f"/api/artifacts/{ids[0]}/{trial}"),
        ("DELETE", f"/api/artifacts/{ids[0]}/{trial}/abc"),
        ("POST", "/incompatible-rdb-schema"),
        ("PATCH", "/api/studies"),
    ):
        answer = browser.ask(method, path, {"study_name": "x", "directions": ["minimize"]})
        assert (answer.status, "read-only" in answer.text) == (403, True), path
    assert [(s.study_name, s.system_attrs, s.user_attrs) for s in storage.get_all_studies()] == before
    assert "read-only" in browser.get("/hpo/").text


def test_login(storage, serve):
    fill(storage, "digits", repeats=1, trials=2)
    browser = serve(password="right horse")
    for path in ("/hpo/", "/dashboard", "/artifacts/1/2/3", "/csv/1", "/hpo/experiment?name=digits"):
        answer = browser.get(path)
        assert (answer.status, answer.getheader("Location")) == (303, f"/hpo/login?next={quote(path, safe='')}")
    for path in ("/api/studies", "/hpo/api/experiments"):
        assert browser.get(path).status == 401
    assert browser.ask("POST", "/api/studies", {"study_name": "x", "directions": ["minimize"]}).status == 401
    assert browser.get("/hpo/login").status == 200
    wrong = browser.log_in("wrong horse")
    assert wrong.status == 403
    assert "That is not the password" in wrong.text
    answer = browser.log_in("right horse", "/hpo/experiment?name=digits")
    assert answer.getheader("Location").endswith("/hpo/experiment?name=digits")
    cookie = answer.getheader("Set-Cookie")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie
    assert browser.get("/hpo/").status == 200
    assert browser.get("/api/studies").status == 200
    kept = browser.cookie
    assert browser.ask("POST", "/hpo/logout").status == 303
    browser.cookie = kept
    assert browser.get("/hpo/").status == 303  # the session ended on the server too


def test_forged_cookies_and_foreign_logins(storage, serve):
    browser = serve(password="right horse")
    browser.log_in("right horse")
    good = browser.cookie
    # The last character of base64 text also holds bits that are no part of the signature: change an earlier one.
    forged = good[:-4] + ("A" if good[-4] != "A" else "B") + good[-3:]
    for cookie in (forged, "hpo-session=x.y.z", "hpo-session=", "hpo-session"):
        browser.cookie = cookie
        assert browser.get("/hpo/").status == 303
    other = serve(password="right horse")
    other.cookie = good
    assert other.get("/hpo/").status == 303
    form = urlencode({"password": "right horse"}).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert other.ask("POST", "/hpo/login", form, headers=kind, origin="http://evil.example").status == 403


def test_behind_https_cookies_are_secure(storage, serve):
    browser = serve(password="right horse", https=True, allowed_hosts=["hpo.example"])
    form = urlencode({"password": "right horse"}).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = browser.ask("POST", "/hpo/login", form, headers=kind, host="hpo.example", origin="https://hpo.example")
    assert answer.status == 303
    assert answer.getheader("Set-Cookie").startswith("__Host-hpo-session=")
    assert "; Secure" in answer.getheader("Set-Cookie")
    assert answer.getheader("Strict-Transport-Security") == "max-age=31536000"
    plain = browser.ask("POST", "/hpo/login", form, headers=kind, host="hpo.example", origin="http://hpo.example")
    assert plain.status == 403


def test_tries_are_limited(storage, serve):
    browser = serve(password="right horse")
    assert [browser.log_in("no").status for _ in range(5)] == [403] * 5
    stopped = browser.log_in("right horse")
    assert stopped.status == 429
    assert 0 < int(stopped.getheader("Retry-After")) <= 301
    assert browser.get("/hpo/").status == 303


def test_tries_count_by_address_and_in_all():
    now = [0.0]
    tries = Tries(lambda: now[0])
    assert [tries.begin("a") for _ in range(5)] == [0.0] * 5
    now[0] = 10.0
    assert tries.begin("a") == WINDOW_SECONDS - 10.0
    assert tries.begin("b") == 0.0
    tries.forgive("b")
    for i in range(TRIES_IN_ALL - 5):
        assert tries.begin(f"c{i}") == 0.0
    assert tries.begin("d") > 0
    now[0] = WINDOW_SECONDS + 10.0
    assert tries.begin("a") == 0.0


@pytest.mark.parametrize(
    "wanted",
    ["", "http://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil", "javascript:alert(1)", "/a\r\nb"],
)
def test_the_login_leads_nowhere_else(wanted):
    assert local_path(wanted) == "/hpo/"


def test_the_login_leads_back():
    assert local_path("/hpo/experiment?name=a%20b") == "/hpo/experiment?name=a%20b"


def test_it_is_not_opened_to_others_without_a_login(tmp_path, monkeypatch):
    for host in ("0.0.0.0", "::", "192.168.1.5", "my-machine"):
        with pytest.raises(DashboardError, match="give it a password with HPO_DASHBOARD_PASSWORD or --password-file"):
            make_access(host)
    assert make_access("0.0.0.0", password="x").knows_host("10.1.2.3:8080")
    assert not make_access("0.0.0.0", password="x").knows_host("evil.example")
    assert make_access("::1").login is None
    file = tmp_path / "password"
    file.write_text("right horse\n")
    assert password(file) == "right horse"
    file.write_text("\n")
    with pytest.raises(DashboardError, match="is empty"):
        password(file)
    with pytest.raises(DashboardError, match="cannot be read"):
        password(tmp_path / "none")
    monkeypatch.setenv("HPO_DASHBOARD_PASSWORD", "from the environment")
    assert password(None) == "from the environment"


def test_a_port_in_use(storage):
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DashboardError, match=rf"port {port} on 127\.0\.0\.1 is in use"):
            Server(lambda environ, start: [], "127.0.0.1", port)
    with pytest.raises(DashboardError, match=r"cannot listen on 203\.0\.113\.7"):
        Server(lambda environ, start: [], "203.0.113.7", 0)
    with pytest.raises(DashboardError, match="between 0 and 65535"):
        Server(lambda environ, start: [], "127.0.0.1", 70000)


@pytest.fixture
def artifacts(storage, tmp_path):
    """A running trial with artifacts; returns (study id, trial id, ids by name)."""
    study = optuna.create_study(storage=storage, study_name="with files")
    trial = study.ask()
    store = tmp_path / "artifacts"
    store.mkdir(exist_ok=True)
    ids = {}
    for name, content in {
        "page.html": "<script>alert(1)</script>",
        "picture.svg": "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "picture.png": "not really",
        "notes.txt": "plain",
        "page.xhtml": "<html/>",
        "code.js": "alert(1)",
        "data.bin": "x",
    }.items():
        (tmp_path / name).write_text(content)
        ids[name] = upload_artifact(
            artifact_store=FileSystemArtifactStore(str(store)), file_path=str(tmp_path / name), study_or_trial=trial
        )
    return study._study_id, trial._trial_id, ids


def test_artifacts_are_served_as_what_they_are_never_as_html(serve, artifacts):
    study_id, trial_id, ids = artifacts
    browser = serve()
    expected = {
        "page.html": ("text/plain; charset=utf-8", "attachment"),
        "picture.svg": ("image/svg+xml", "inline"),
        "picture.png": ("image/png", "inline"),
        "notes.txt": ("text/plain; charset=utf-8", "inline"),
        "page.xhtml": ("text/plain; charset=utf-8", "attachment"),
        "code.js": ("text/plain; charset=utf-8", "attachment"),
        "data.bin": ("application/octet-stream", "attachment"),
    }
    for name, (kind, disposition) in expected.items():
        answer = browser.get(f"/artifacts/{study_id}/{trial_id}/{ids[name]}")
        assert answer.status == 200, name
        assert (answer.getheader("Content-Type"), answer.getheader("Content-Disposition")) == (kind, disposition), name
        assert answer.getheader("Content-Security-Policy").startswith("sandbox; default-src 'none'")
        assert answer.getheader("X-Content-Type-Options") == "nosniff"


def test_path_traversal_in_artifact_ids(serve, artifacts, tmp_path):
    study_id, trial_id, ids = artifacts
    (tmp_path / "secret").write_text("secret")
    browser = serve()
    good = ids["notes.txt"]
    for wanted in (
        "../secret",
        "..%2fsecret",
        "%2e%2e%2fsecret",
        "..%5csecret",
        f"{good}/../../secret",
        f"{good}%00",
        "%2fetc%2fpasswd",
        "....//secret",
    ):
        answer = browser.get(f"/artifacts/{study_id}/{trial_id}/{wanted}")
        assert answer.status in (400, 404), wanted
        assert "secret" not in answer.text.replace(wanted, "") or "Not found" in answer.text
        assert b"root:" not in answer.content
    for wanted in ("/static/..%2f_app.py", "/static/../_app.py", "/static/%2e%2e/%2e%2e/bottle.py"):
        assert browser.get(wanted).status in (403, 404), wanted
    (tmp_path / "artifacts" / good).unlink()
    assert browser.get(f"/artifacts/{study_id}/{trial_id}/{good}").status == 404


def test_a_study_of_an_experiment_is_not_renamed(storage, serve):
    """Optuna renames by copying and deleting: ours are refused with the reason, others are renamed as ever."""
    ids = fill(storage, "e", ("random",), 1, 2)
    own = optuna.create_study(study_name="own", storage=storage)._study_id
    browser = serve()
    for path in (f"/api/studies/{ids[0]}/rename", f"/api/studies/{ids[0]}/rename/", f"/api/studies/0{ids[0]}/rename"):
        answer = browser.ask("POST", path, {"study_name": "mine"})
        assert answer.status in (404, 409), path
        if answer.status == 409:
            assert "belongs to an experiment" in json.loads(answer.content)["reason"]
    assert browser.ask("POST", f"/api/studies/{own}/rename", {"study_name": "renamed"}).status == 201
    assert sorted(storage.get_study_name_from_id(s._study_id) for s in storage.get_all_studies()) == [
        "e/random/0",
        "renamed",
    ]


def test_an_artifact_of_another_machine_says_where_it_lies(storage, serve):
    ids = fill(storage, "e", ("random",), 1, 2)
    trial = storage.get_all_trials(ids[0])[0]._trial_id
    artifact_id = "11111111-2222-3333-4444-555555555555"
    note = {"artifact_id": artifact_id, "filename": "a.png", "mimetype": "image/png", "encoding": None}
    with storage.engine.begin() as connection:
        for table, key, value in (
            ("trial_system_attributes", f"artifacts:{artifact_id}", json.dumps(note)),
            ("trial_user_attributes", "worker", "node7:123:abc"),
        ):
            connection.execute(
                sa.text(f"INSERT INTO {table} (trial_id, key, value_json) VALUES (:t, :k, :v)"),
                {"t": trial, "k": key, "v": json.dumps(value)},
            )
    answer = serve().get(f"/artifacts/{ids[0]}/{trial}/{artifact_id}")
    assert answer.status == 404
    assert "on the machine node7" in answer.text
    assert "--checkpoint-dir" in answer.text


def test_optunas_pages_link_back_and_keep_their_policy(storage, serve):
    fill(storage, "e", ("random",), 1, 2)
    browser = serve()
    for path in ("/dashboard", "/dashboard/studies/1/trials"):
        page = browser.get(path, headers={"If-Modified-Since": "Wed, 25 Nov 2099 00:00:00 GMT"})
        assert page.status == 200
        assert '<a id="hpo-back" href="/hpo/from-optuna"' in page.text
        assert int(page.getheader("Content-Length")) == len(page.content)
        assert "script-src 'self'" in page.getheader("Content-Security-Policy")
    style = browser.get("/hpo/static/optuna.css")
    assert style.status == 200
    assert style.getheader("Content-Type").startswith("text/css")

"""Nobody sees a run without its token, and nothing that another site asks for is done."""

import stat
from pathlib import Path

import pytest

from services.errors import InputError
from services.page.access import token_of
from tests.services.page.conftest import Page

PATHS = ("/", "/assets/page.js", "/api/state", "/api/groups", "/api/group?step=4&group=train-3", "/docs", "/nowhere")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cookie", [None, "", "wrong", "ünïcode"])
def test_a_request_without_the_token_gets_a_sentence(page: Page, path: str, cookie: str | None) -> None:
    entered = page.client.get("/", params={"token": page.token}, follow_redirects=False)
    name = entered.headers["set-cookie"].partition("=")[0]
    page.client.cookies.clear()
    headers = {} if cookie is None else {b"Cookie": f"{name}={cookie}".encode()}
    answer = page.client.get(path, headers=headers)
    assert answer.status_code == 401
    assert "This page needs the token of its run: open the address that `ratchet up`" in answer.text
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_a_wrong_token_is_called_wrong(page: Page) -> None:
    answer = page.client.get("/", params={"token": page.token[:-1]})
    assert answer.status_code == 401
    assert "That is not the token of this run." in answer.text


def test_the_token_goes_from_the_address_into_a_cookie(page: Page) -> None:
    answer = page.client.get(
        "/", params={"token": page.token, "view": "groups", "verdict": "mixed"}, follow_redirects=False
    )
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?view=groups&verdict=mixed"
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert page.client.get("/api/state").status_code == 200


def test_a_link_that_is_opened_without_the_token_keeps_what_it_points_at(page: Page) -> None:
    answer = page.client.get("/", params={"view": "groups", "group": '"><script>x</script>'})
    assert answer.status_code == 401
    assert '<input type="hidden" name="view" value="groups">' in answer.text
    assert "<script" not in answer.text


@pytest.mark.parametrize("origin", [None, "http://elsewhere.example", "http://127.0.0.1:8001", "null"])
def test_another_site_requeues_nothing(page: Page, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin}
    answer = page.enter().post("/api/requeue", params={"group": "train-7"}, headers=headers)
    assert answer.status_code == 403
    assert "comes from another site" in answer.text
    assert not page.folder.requeued.exists()


def test_the_token_is_for_this_user_alone_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = token_of(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(token) >= 43
    assert token_of(path) == token
    path.write_text("")
    with pytest.raises(InputError, match="is empty; delete it"):
        token_of(path)


@pytest.mark.parametrize(
    "path", ["/assets/..%2f..%2fapp.py", "/assets/../../app.py", "/assets/%2e%2e/app.py", "/assets/none.js"]
)
def test_no_request_becomes_a_path(page: Page, path: str) -> None:
    assert page.enter().get(path).status_code == 404


def test_scripts_come_from_the_page_alone(page: Page) -> None:
    answer = page.enter().get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe-inline" not in policy
    assert "<script>" not in answer.text
    assert " on" + "click=" not in answer.text
    assert "://" not in answer.text  # everything is shipped

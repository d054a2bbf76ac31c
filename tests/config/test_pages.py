"""Error pages in the frame, and what a browser is told to load."""

import pytest
from django.test import Client, RequestFactory
from django.views.defaults import server_error


def test_a_missing_page_is_told_in_the_frame_and_in_the_readers_language(db: None) -> None:
    chinese = Client().get("/nothing/")
    english = Client(headers={"accept-language": "en"}).get("/nothing/")
    assert (chinese.status_code, english.status_code) == (404, 404)
    assert "页面不存在" in chinese.content.decode()
    assert "Page not found" in english.content.decode()


def test_the_page_of_a_failure_needs_no_database(rf: RequestFactory) -> None:
    answer = server_error(rf.get("/"))
    assert answer.status_code == 500
    assert "portal.css" in answer.content.decode()


@pytest.mark.parametrize("path", ["/sign-in/", "/admin/login/", "/api/docs/"])
def test_every_page_tells_the_browser_to_load_from_this_server_only(db: None, path: str) -> None:
    policy = Client().get(path)["Content-Security-Policy"]
    assert "http" not in policy
    assert "*" not in policy
    assert ("unsafe" in policy) == (path != "/sign-in/")

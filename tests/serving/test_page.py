"""The page's files: `/` gives it to a browser, and nothing outside of its folder can be had."""

import http.client

import pytest
from support.serving import TestClient, served

from nla_jax.serving.server import application

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def page(tmp_path):
  folder = tmp_path / "explorer"
  (folder / "inside").mkdir(parents=True)
  (folder / "index.html").write_text("<title>a page</title>")
  (folder / "main.js").write_text("export {}")
  (folder / "inside" / "more.css").write_text("p {}")
  (tmp_path / "secret.txt").write_text("not for you")
  (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
  return folder


def test_a_browser_gets_the_page_and_everyone_else_the_status(service, page):
  client = TestClient(application(service, page))
  found = client.get("/", headers=BROWSER)
  assert found.text == "<title>a page</title>" and "html" in found.headers["content-type"]
  for accept in ("*/*", "application/json", ""):
    assert client.get("/", headers={"Accept": accept}).json()["status"] == "ok"
  assert client.get("/explorer/main.js").headers["content-type"].startswith("text/javascript")
  assert client.get("/explorer/inside/more.css").text == "p {}"
  assert client.get("/explorer/", headers=BROWSER).text == "<title>a page</title>"


def test_the_page_needs_no_secret_and_the_status_does(make_service, page):
  client = TestClient(application(make_service(secret="a long secret"), page))
  assert client.get("/", headers=BROWSER).status_code == 200
  assert client.get("/explorer/main.js").status_code == 200
  assert client.get("/").status_code == 401


def test_without_a_page_a_browser_gets_the_status(service, tmp_path):
  client = TestClient(application(service, tmp_path / "none"))
  assert client.get("/", headers=BROWSER).json()["status"] == "ok"
  assert client.get("/explorer/main.js").status_code == 404


@pytest.mark.parametrize(
  "path",
  [
    "/explorer/../secret.txt",
    "/explorer/%2e%2e/secret.txt",
    "/explorer/..%2fsecret.txt",
    "/explorer/inside/../../secret.txt",
    "/explorer//etc/passwd",
    "/explorer/%00",
    "/explorer/link.txt",
    "/explorer/..\\secret.txt",
  ],
)
def test_no_path_climbs_out_of_the_folder(service, page, path):
  # http.client sends a path as it is; other clients tidy it up.
  with served(service, page=page) as port:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    response = connection.getresponse()
    content = response.read()
    assert (
      response.status in (400, 404) and b"not for you" not in content and b"root:" not in content
    )
    assert b"is not served" in content

"""A service of a pair whose answers are known, and a client of it."""

import pytest

for part in ("starlette", "uvicorn", "httpx2"):
  pytest.importorskip(part, reason=f"serving needs {part}: pip install 'nla_jax[serve,test]'")

from starlette.testclient import TestClient
from support.known_reader import KnownReader

from nla_jax.serving.limits import Limits
from nla_jax.serving.server import application
from nla_jax.serving.service import Service


@pytest.fixture
def make_service():
  """Makes services with limits of a test's own; those are ended after it."""
  made = []

  def make(secret=None, **limits):
    made.append(Service(KnownReader(), Limits(**limits), secret))
    return made[-1]

  yield make
  for one in made:
    one.reader.gate.set()
    assert one.close(20), "the device's thread did not end"


@pytest.fixture
def service(make_service):
  return make_service()


@pytest.fixture
def client(service):
  return TestClient(application(service), raise_server_exceptions=False)

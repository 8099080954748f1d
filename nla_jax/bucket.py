"""Folders in a bucket, gs://bucket/folder or s3://bucket/folder: their settings, and paths that work like pathlib's.

Credentials are never written anywhere: they come from the environment or the cloud's own files, as everywhere else.

- gs:// takes Google's application-default credentials. TENSORSTORE_GCS_HTTP_URL names another server.
- s3:// takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, else AWS_PROFILE of ~/.aws/credentials, else what the machine
  has been given. AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL names another server, AWS_REGION or AWS_DEFAULT_REGION a
  region.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import tensorstore as ts

from nla_jax.errors import NLAError, first_line

SCHEMES = ("gs://", "s3://")
RETRIES = 8  # about a minute; the library's own 32 are a quarter of an hour
_PROBE = "may_be_written"
_REGION = "us-east-1"  # what other servers than Amazon's expect


# What a server of buckets answers where its own or the caller's rights are at fault, and where it does not answer. A
# HEAD is answered by a number alone: where credentials have run out, 400 with Amazon.
_REFUSED = re.compile(
  r"Expired|Denied|DENIED|Credential|credential|Signature|http_response_code='40[013]'"
)
_SILENT = re.compile(
  r"retry attempts|curl_code|http_response_code='(429|5\d\d)'|UNAVAILABLE|DEADLINE"
)
_CODE = re.compile(r"http_response_code='(\d+)'")


def reason(error: Exception) -> str:
  """What TensorStore says in an error, in one line without what is longer: a store's specification, a server's page."""
  found = first_line(error).split(" [tensorstore_spec=")[0]
  said = re.split(r" \[(?:http_response|curl_code)", found)[0]
  code = _CODE.search(found)
  return f"{said}, HTTP {code[1]}" if code else said


def advice(path: str | os.PathLike, error: Exception) -> str | None:
  """What to do about a bucket that refused a request or did not answer; None where the error is another.

  Args:
    path: that was asked for.
    error: of TensorStore.
  """
  if not is_url(path):
    return None
  text = str(error)
  if _REFUSED.search(text):
    return "renew the credentials, or what they allow, and run the same command again: what is complete is kept"
  if _SILENT.search(text):
    return "run the same command again when the server answers: what is complete is kept"
  return None


def is_url(path: str | os.PathLike) -> bool:
  """Whether a path is the URL of something, and no path of this machine."""
  return "://" in os.fspath(path)


def spec(
  url: str, environment: Mapping[str, str] = os.environ, retries: int = RETRIES
) -> dict | str:
  """The KvStore spec of a URL: of S3 with the server, the region and the kind of credentials that are configured.

  Args:
    url: of a folder or a file; one of another scheme is given back as it is.
    environment: variables, see the module.
    retries: how often a request that failed is made again, after longer and longer waits.
  """
  if not url.startswith(SCHEMES):
    return url
  scheme, _, rest = url.partition("://")
  bucket, _, path = rest.partition("/")
  driver = {"gs": "gcs", "s3": "s3"}[scheme]
  waits = {"max_retries": retries, "initial_delay": "500ms", "max_delay": "16s"}
  found = {
    "driver": driver,
    "bucket": bucket,
    "path": path,
    "context": {f"{driver}_request_retries": waits},
  }
  if scheme != "s3":
    return found
  endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
  region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
  if endpoint:
    found |= {"endpoint": endpoint.rstrip("/"), "aws_region": region or _REGION}
  elif region:
    found["aws_region"] = region

  # Left to itself the library asks each source in turn, of which the last takes seconds where there is none.
  if environment.get("AWS_ACCESS_KEY_ID"):
    found["aws_credentials"] = {"type": "environment"}
  elif environment.get("AWS_PROFILE"):
    found["aws_credentials"] = {"type": "profile", "profile": environment["AWS_PROFILE"]}
  return found


class BucketPath(os.PathLike):
  """A file or a folder in a bucket, with that part of pathlib's interface that a run uses.

  A bucket has no folders, only names with slashes: one exists as soon as something lies in it.
  """

  def __init__(self, url: str):
    scheme, _, rest = str(url).partition("://")
    self._scheme = scheme
    # As pathlib does it: no double slashes, none at the end.
    self._path = PurePosixPath(*[part for part in rest.split("/") if part])

  def __truediv__(self, child: str | os.PathLike) -> "BucketPath":
    return BucketPath(f"{self}/{os.fspath(child)}")

  def __fspath__(self) -> str:
    return f"{self._scheme}://{self._path}"

  __str__ = __fspath__

  def __repr__(self) -> str:
    return f"BucketPath({str(self)!r})"

  def __eq__(self, other: object) -> bool:
    return isinstance(other, BucketPath) and str(self) == str(other)

  def __hash__(self) -> int:
    return hash(str(self))

  @property
  def name(self) -> str:
    """The last part."""
    return self._path.name

  @property
  def parent(self) -> "BucketPath":
    """The folder that it lies in; the bucket's is the bucket."""
    above = self._path.parent if len(self._path.parts) > 1 else self._path
    return BucketPath(f"{self._scheme}://{above}")

  def absolute(self) -> "BucketPath":
    """Itself."""
    return self

  def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
    """Does nothing: a folder is there when something lies in it."""

  def is_file(self) -> bool:
    """Whether an object has this name. Raises NLAError where the bucket does not answer."""
    key = self.name
    return bool(key) and key.encode() in self.parent._keys(ts.KvStore.KeyRange(key, key + "\0"))

  def is_dir(self) -> bool:
    """Whether something lies in it."""
    return bool(self._keys())

  def exists(self) -> bool:
    """Whether it is a file or a folder."""
    return self.is_file() or self.is_dir()

  def iterdir(self) -> Iterator["BucketPath"]:
    """What lies in it, in the order of the names."""
    first = {key.decode().split("/")[0] for key in self._keys()}
    return (self / name for name in sorted(first))

  def unlink(self, missing_ok: bool = False) -> None:
    """Deletes the file; that there is none is no error in a bucket."""
    with self._asked():
      self.parent.store().write(self.name, None).result()

  def remove_all(self) -> None:
    """Deletes everything that lies in it."""
    with self._asked():
      self.store().delete_range(ts.KvStore.KeyRange()).result()

  def store(self) -> ts.KvStore:
    """What lies in it as key-value pairs."""
    return ts.KvStore.open(spec(f"{self}/")).result()

  def _keys(self, keys: ts.KvStore.KeyRange | None = None) -> list[bytes]:
    with self._asked():
      store = self.store()
      found = store.list(keys or ts.KvStore.KeyRange()).result()
      # TensorStore 0.1.86 takes Google's refusal to list for an empty folder; its refusal to read is an error.
      if not found and self._scheme == "gs":
        store.read(_PROBE).result()
      return found

  @contextlib.contextmanager
  def _asked(self) -> Iterator[None]:
    try:
      yield
    except (ValueError, OSError, RuntimeError, NotImplementedError) as error:
      raise NLAError(
        f"{self} cannot be used ({reason(error)}); check the bucket's name, its server, and what its credentials allow"
      ) from error


Place = Path | BucketPath


def place(path: str | os.PathLike) -> Place:
  """A path of this machine or in a bucket, to be joined with `/`."""
  if isinstance(path, BucketPath):
    return path
  return BucketPath(os.fspath(path)) if is_url(path) else Path(path)


def check(folder: "BucketPath") -> None:
  """Asks a bucket once whether it can be written to, before anything is computed for it.

  Raises:
    NLAError: it does not answer, is not there, or does not take a file.
  """
  with folder._asked():
    store = ts.KvStore.open(spec(f"{folder}/", retries=2)).result()
    store.write(_PROBE, b"").result()
    store.write(_PROBE, None).result()


def send(folder: Path, to: BucketPath) -> None:
  """Copies the files of a local folder into a bucket."""
  store = to.store()
  names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
  for name in sorted(names):
    store.write(name, (folder / name).read_bytes()).result()

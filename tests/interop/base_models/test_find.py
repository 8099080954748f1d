"""A model's name means one thing, whoever asks: the loader, the tokenizer's loader, the card or `nla inspect`."""

from pathlib import Path

import pytest

from nla_jax.errors import NLAError
from nla_jax.interop.base_models.find import Located, locate


@pytest.mark.parametrize(
  "name, kind", [("random:tiny", "random"), ("owner/name", "remote"), ("no-such-thing", "remote")]
)
def test_what_is_not_on_this_machine_has_no_path(name, kind):
  assert locate(name) == Located(kind)


def test_a_folder_is_taken_before_a_hub_id_of_the_same_name(tmp_path, monkeypatch):
  (tmp_path / "owner" / "name").mkdir(parents=True)
  monkeypatch.chdir(tmp_path)
  assert locate("owner/name") == Located("folder", Path("owner/name"))


def test_a_name_that_ends_in_gguf_is_a_file_whether_or_not_it_is_there():
  assert locate("owner/name.gguf") == Located("gguf", Path("owner/name.gguf"))


def test_the_home_folder_may_be_abbreviated(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert locate("~") == Located("folder", tmp_path)
  assert locate("~/m.gguf") == Located("gguf", tmp_path / "m.gguf")


def test_the_only_gguf_file_of_a_package_is_found_and_the_package_not_imported(
  tmp_path, monkeypatch
):
  package = tmp_path / "holds_a_model"
  package.mkdir()
  (package / "__init__.py").write_text("raise RuntimeError('imported')")
  (package / "m.gguf").touch()
  monkeypatch.syspath_prepend(tmp_path)
  assert locate("package:holds_a_model") == Located("gguf", package / "m.gguf")

  (package / "n.gguf").touch()
  with pytest.raises(NLAError, match=r"exactly one \.gguf file, found m\.gguf, n\.gguf"):
    locate("package:holds_a_model")

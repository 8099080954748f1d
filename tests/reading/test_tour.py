"""The notebook runs whole, on a tiny pair."""

from pathlib import Path

import pytest
from support.browser import tiny_pair

nbclient = pytest.importorskip(
  "nbclient", reason="the notebook's test needs nbclient and ipykernel"
)
nbformat = pytest.importorskip("nbformat")
TOUR = Path(__file__).parents[2] / "docs" / "tour.ipynb"


def test_the_tour_runs_whole(tmp_path, monkeypatch):
  tiny_pair(tmp_path)
  monkeypatch.setenv("NLA", str(tmp_path))
  monkeypatch.setenv("NLA_BASE", str(tmp_path / "base"))
  notebook = nbformat.read(TOUR, as_version=4)
  nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
  outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
  shown = "".join(output.get("text", "") for output in outputs)
  assert "activations" in shown and "another's" in shown
  # The reading shows itself, and steering its controls.
  assert any("confabulate" in output.get("data", {}).get("text/html", "") for output in outputs)
  assert all(name in shown for name in ("edit ", "random ", "unedited ", "unrelated "))

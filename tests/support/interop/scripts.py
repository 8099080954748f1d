"""Runs scripts of this folder in one process, so that torch and transformers are imported once for all of them.

  python scripts.py

Reads a line of JSON for each run, [script, *arguments], and answers with one: {"printed": …} or {"error": …}.
"""

import contextlib
import io
import json
import runpy
import sys
import traceback

answers = sys.stdout
for line in sys.stdin:
  sys.argv = json.loads(line)
  printed = io.StringIO()
  try:
    with contextlib.redirect_stdout(printed):
      runpy.run_path(sys.argv[0], run_name="__main__")
    answer = {"printed": printed.getvalue()}
  except (Exception, SystemExit):
    answer = {"error": traceback.format_exc()}
  print(json.dumps(answer), file=answers, flush=True)

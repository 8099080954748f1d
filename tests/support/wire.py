"""What Neuronpedia's NLA API answers, by field: the names and kinds that its clients read, written down here anew.

A kind is a type, a tuple of kinds (one of them), a list of one kind (a list of it), a set of values, or an object:
a dictionary whose keys have to be there, all of them and no others. `None` is null.
"""

NUMBER, MAYBE = (int, float), (int, float, None)

TOKEN = {
  "token": str,
  "token_id": int,
  "position": int,
  "fragment_index": int,
  "fragment_count": int,
  "role": (str, None),
  "section": ({"header", "content", "footer", "scaffold"}, None),
  "channel": (str, None),
  "message_index": (int, None),
}
DESCRIPTION = {"description": str, "mse": MAYBE, "cosine_similarity": MAYBE}
EXPLAINED = {**TOKEN, **DESCRIPTION, "l2_norm": NUMBER, "generated": bool}
SCORE = {"mse": NUMBER, "cosine_similarity": NUMBER}
COMPARE = {**DESCRIPTION, "diff_norm": NUMBER}
ACTIVATION = {
  "token": str,
  "token_id": int,
  "position": int,
  "activation": [NUMBER],
  "l2_norm": NUMBER,
}
TOKENIZED = {"tokens": [TOKEN], "prompt_length": int, "text": str}
LIMITS = {
  "max_input_chars": int,
  "max_positions_per_request": int,
  "max_new_tokens": int,
  "max_describe_batch": int,
  "max_description_chars": int,
  "max_completion_tokens": int,
}
# What has to be there; a server may say more.
STATUS = {
  "status": str,
  "verbalizer_model": str,
  "reconstructor_available": bool,
  "source_model": (str, None),
  "d_model": (int, None),
  "extraction_layer": (int, None),
  "completion_available": bool,
  "num_cuda_devices": int,
  "max_concurrent": int,
  "max_concurrent_explains": int,
  "source_max_concurrent": int,
  "reconstructor_max_concurrent": int,
  "max_describe_requests": int,
}
WRONG_FIELD = {"detail": [{"loc": [(str, int)], "msg": str, "type": str}]}
REFUSED = {"detail": str}

ANSWERS = {
  "/explain": {"layer_index": int, "results": [EXPLAINED]},
  "/describe": {"results": [DESCRIPTION]},
  "/score": SCORE,
  "/compare": COMPARE,
  "/extract": {"layer_index": int, "tokens": [ACTIVATION]},
  "/tokenize": TOKENIZED,
  "/completion": TOKENIZED,
}
# Frames, in the order in which a client may see them.
EXPLAIN_FRAMES = (
  {"layer_index": int, "total": int, "prompt_length": int},
  {"position": int, "text": str, "done": {False}},
  EXPLAINED,
)
DESCRIBE_FRAMES = (
  {"index": int, "text": str, "done": {False}},
  {"index": int, **DESCRIPTION},
)
COMPLETION_FRAMES = (
  {"type": {"prompt"}, "prompt_length": int, "tokens": [TOKEN]},
  {"type": {"token"}, "token": TOKEN},
  {"type": {"done"}, "text": str},
)


def fault(value, kind, place: str = "the answer", more: bool = False) -> str | None:
  """What is wrong with a value, in words; None where it is of its kind. `more` allows further keys."""
  if isinstance(kind, tuple):
    return None if any(fault(value, one) is None for one in kind) else f"{place} is {value!r:.60}"
  if kind is None or isinstance(kind, set):
    right = value is None if kind is None else any(value is one or value == one for one in kind)
    return None if right else f"{place} is {value!r:.60}"
  if isinstance(kind, type):
    right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    return None if right else f"{place} is {value!r:.60}, not {kind.__name__}"

  # Lists and objects, whose parts are looked at.
  if not isinstance(value, type(kind)):
    return f"{place} is {value!r:.60}"
  if isinstance(kind, list):
    parts = [(one, kind[0], f"{place}[{i}]") for i, one in enumerate(value)]
  else:
    missing, further = kind.keys() - value.keys(), value.keys() - kind.keys()
    if missing or (further and not more):
      return f"{place} lacks {sorted(missing)} and has {sorted(further)}"
    parts = [(value[key], kind[key], f"{place}.{key}") for key in kind]
  return next((found for part in parts if (found := fault(*part))), None)


def which(frame, kinds) -> int:
  """Index of the kind that a frame is; an error where it is none or several."""
  found = [i for i, kind in enumerate(kinds) if fault(frame, kind) is None]
  assert len(found) == 1, f"{frame} is {len(found)} of the known frames"
  return found[0]

"""The part of Kubernetes' published schemas that launch/jobset.yaml uses, written down by hand.

Of JobSet (jobset.x-k8s.io, v1alpha2), Job (batch/v1) and Pod (core/v1): fields, their types, what is needed, and which
words there are. An API server refuses or drops a field that it does not know, so that none other may stand there.
"""

_INT32 = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_TEXT = {"type": "string", "minLength": 1}
# RFC 1123: the name is part of host names.
_LABEL = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
# YAML reads 4 as a number and true as a truth value; both would be refused.
_WORDS = {"type": "object", "additionalProperties": _TEXT}
_QUANTITY = {"anyOf": [_INT32, {"type": "string", "pattern": "^[0-9.]+[A-Za-z]*$"}]}


def _object(needed: tuple[str, ...] = (), **fields) -> dict:
  return {
    "type": "object",
    "properties": fields,
    "required": list(needed),
    "additionalProperties": False,
  }


def _list(one: dict, least: int = 0) -> dict:
  return {"type": "array", "items": one, "minItems": least}


_CONTAINER = _object(
  ("name", "image"),
  name=_LABEL,
  image=_TEXT,
  command=_list(_TEXT),
  args=_list(_TEXT),
  env=_list(_object(("name",), name=_TEXT, value={"type": "string"})),
  resources=_object(
    limits={"type": "object", "additionalProperties": _QUANTITY},
    requests={"type": "object", "additionalProperties": _QUANTITY},
  ),
)
_POD = _object(
  ("containers",),
  # A job's pods end: Always is refused.
  restartPolicy={"enum": ["Never", "OnFailure"]},
  terminationGracePeriodSeconds=_INT32,
  subdomain=_LABEL,
  nodeSelector=_WORDS,
  serviceAccountName=_TEXT,
  containers=_list(_CONTAINER, 1),
)
_JOB = _object(
  ("template",),
  parallelism=_INT32,
  completions=_INT32,
  completionMode={"enum": ["NonIndexed", "Indexed"]},
  backoffLimit=_INT32,
  template=_object(("spec",), metadata=_object(labels=_WORDS, annotations=_WORDS), spec=_POD),
)
_REPLICATED = _object(
  ("name", "template"),
  name=_LABEL,
  groupName=_LABEL,
  replicas=_INT32,
  template=_object(("spec",), spec=_JOB),
)
_STRATEGIES = ["Recreate", "BlockingRecreate", "InPlaceRestart"]

JOBSET = _object(
  ("apiVersion", "kind", "metadata", "spec"),
  apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
  kind={"const": "JobSet"},
  metadata=_object(("name",), name=_LABEL, annotations=_WORDS, labels=_WORDS),
  spec=_object(
    ("replicatedJobs",),
    replicatedJobs=_list(_REPLICATED, 1),
    network=_object(
      enableDNSHostnames={"type": "boolean"},
      subdomain=_LABEL,
      publishNotReadyAddresses={"type": "boolean"},
    ),
    failurePolicy=_object(maxRestarts=_INT32, restartStrategy={"enum": _STRATEGIES}),
    suspend={"type": "boolean"},
    ttlSecondsAfterFinished=_INT32,
  ),
)

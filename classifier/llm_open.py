"""The LLM arm of a bundle, wherever it runs: in this process, or on a server."""

from collections.abc import Callable
from pathlib import Path

from classifier.llm import LlmArm
from classifier.llm_load import LlmSettings, read_settings
from classifier.remote_llm import RemoteLlm
from classifier.remote_settings import find_remote
from classifier.schema import Schema

FindFolder = Callable[[], Path]


def open_llm(
    part: Path, name: str, schema: Schema, prompt: str, *, find_weights: FindFolder, find_tokenizer: FindFolder
) -> LlmArm | RemoteLlm:
    """`name`: what a server knows the part by, unless it is told otherwise. Raises BundleError or BaseModelError.

    A remote part may bring the tokenizer of its model along; then no base model need be on this machine.
    """
    settings = LlmSettings.read(part)
    remote = find_remote(read_settings(part), model=name)
    if remote is None:
        return LlmArm.load(part, find_weights(), schema, prompt, settings=settings)
    tokenizer = part if (part / "tokenizer.json").is_file() else find_tokenizer()
    return RemoteLlm.load(remote, tokenizer, schema, prompt, max_tokens=settings.max_tokens)

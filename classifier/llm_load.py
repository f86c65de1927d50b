"""From a base model folder and an adapter to a model that scores: settings, sharing of base weights, layout.

Environment, each stronger than the bundle's llm.json: HEED_LLM_INT8 (`1`, `0`; on a CPU), HEED_LLM_QUANTISE (`8bit`,
`4bit`: bitsandbytes), HEED_LLM_DTYPE (`float32`, `bfloat16`, `float16`; default bfloat16 on a GPU, float32 on a CPU).
"""

import json
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from classifier.errors import BundleError

MAX_TOKENS = 512
QUANTISATIONS = ("", "8bit", "4bit")
DTYPES = ("", "float32", "bfloat16", "float16")
GROUPED_ATTENTION = "heed_grouped"


@dataclass(frozen=True, slots=True)
class LlmSettings:
    """How the LLM part of a bundle is run."""

    max_tokens: int = MAX_TOKENS
    """Of the text; what is longer keeps its head and its tail."""
    int8: bool = False
    """On a CPU; decided for each bundle by `training.jobs.int8_gate`."""
    quantise: str = ""
    dtype: str = ""

    @classmethod
    def read(cls, part: Path) -> Self:
        """Raises BundleError naming the field or variable that is wrong."""
        raw = read_settings(part)
        tokens, int8 = raw.get("max_tokens", MAX_TOKENS), raw.get("int8", False)
        if type(tokens) is not int or tokens < 16:
            raise BundleError("llm.json: max_tokens must be a whole number, at least 16")
        if not isinstance(int8, bool):
            raise BundleError("llm.json: int8 must be true or false")
        wanted = _choice("HEED_LLM_INT8", ("", "0", "1"))
        return cls(
            max_tokens=tokens,
            int8=int8 if not wanted else wanted == "1",
            quantise=_choice("HEED_LLM_QUANTISE", QUANTISATIONS),
            dtype=_choice("HEED_LLM_DTYPE", DTYPES),
        )


def read_settings(part: Path) -> dict[str, Any]:
    """llm.json as it is. Raises BundleError."""
    try:
        raw: Any = json.loads((part / "llm.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"llm.json cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise BundleError("llm.json must hold an object")
    return raw


def _choice(variable: str, allowed: tuple[str, ...]) -> str:
    value = os.environ.get(variable, "")
    if value not in allowed:
        raise BundleError(f"{variable} is {value!r}, expected {', '.join(item for item in allowed if item)} or nothing")
    return value


def load_llm(base: Path, adapter: Path | None, settings: LlmSettings) -> Any:
    """A model that is ready to score. Raises OSError, ValueError, RuntimeError, ImportError, as transformers does.

    Weights that an adapter leaves as they are stand in memory once for all models of this process on the same base.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, settings.dtype or ("bfloat16" if device == "cuda" else "float32"))
    # transformers sets process-wide state while it reads a model.
    with _loading:
        model = _read_model(base, device, dtype, settings.quantise)
        if settings.quantise:
            # Merging into quantised weights would round the adapter away, so there it stays beside them.
            return (_add_adapter(model, adapter) if adapter else model).eval()
        if device == "cpu":
            _prepare_for_cpu(model)
        untouched = {id(parameter): name for name, parameter in model.named_parameters()}
        if adapter is not None:
            model = _add_adapter(model, adapter)
            for parameter in _adapted(model):
                untouched.pop(id(parameter), None)
            model = model.merge_and_unload()
        _share(model, base.name, untouched)
        return model.eval()


_loading = threading.Lock()
_shared: "weakref.WeakValueDictionary[tuple[str, str], nn.Parameter]" = weakref.WeakValueDictionary()
"""(base, name) -> weight, for as long as any model uses it."""


def _share(model: nn.Module, base: str, names: Mapping[int, str]) -> None:
    """Put weights that are in memory already in the place of equal ones. `names`: id of a parameter -> its name."""
    for module in model.modules():
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in names:
                continue
            known = _shared.setdefault((base, names[id(parameter)]), parameter)
            # Compared, not trusted: another folder may have the same name, and a file may have changed.
            if known.device == parameter.device and known.dtype == parameter.dtype and torch.equal(known, parameter):
                setattr(module, leaf, known)


def _add_adapter(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter))


def _adapted(model: nn.Module) -> Iterator[nn.Parameter]:
    """The weights of the base that the adapter changes."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            layer: nn.Module = module.get_base_layer()
            yield from layer.parameters(recurse=False)


def _read_model(base: Path, device: str, dtype: torch.dtype, quantise: str) -> Any:
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": _choose_attention(base)}
    if quantise:
        bits_and_bytes: Any = transformers.BitsAndBytesConfig
        options["quantization_config"] = bits_and_bytes(
            load_in_8bit=quantise == "8bit",
            load_in_4bit=quantise == "4bit",
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_type="nf4",
        )
        options["device_map"] = device
    model: Any = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, use_safetensors=True, **options)
    return model.eval() if quantise else model.to(device).eval()


def _choose_attention(base: Path) -> str:
    """Both take a ready-made 4-D mask; flash attention does not. Scores that are capped inside need the eager one."""
    config: Any = AutoConfig.from_pretrained(base, local_files_only=True)
    return "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"


def _prepare_for_cpu(model: Any) -> None:
    """Weights `[out, in]` with the inputs' stride 1 become those with the outputs': a quarter faster to multiply by."""
    head = model.get_output_embeddings()
    for module in model.modules():
        if type(module) is nn.Linear and module is not head and module.weight.dtype == torch.float32:
            module.weight.data = module.weight.data.t().contiguous().t()
    if model.config._attn_implementation == "sdpa" and model._supports_attention_backend:
        model.set_attn_implementation(GROUPED_ATTENTION)


def attend_grouped(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """SDPA where the query heads of a group read their one key head; transformers copies it for each of them."""
    if attention_mask is None or any(others.get(name) is not None for name in ("position_bias", "s_aux", "softcap")):
        fallback: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return fallback
    grouped = query.shape[1] != key.shape[1]
    answer = F.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=grouped
    )
    return answer.transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED_ATTENTION, attend_grouped)
AttentionMaskInterface.register(GROUPED_ATTENTION, sdpa_mask)


def settings_json(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), indent=2) + "\n"

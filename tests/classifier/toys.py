"""Toy base models and bundles: real files, real loading, no download, well under two seconds.

    bases = make_base_models(tmp_path / "bases")            # toy-bert and toy-llama, the same bytes every time
    bundle = make_bundle(tmp_path, name="toy-1", seed=1)    # makes the base models in tmp_path/base_models as well
    classifier = api.load(bundle, base_models=tmp_path / "base_models")

The toy encoder is random; its heads are solved so that the five golden statements, and any `answers` you add, come out
right, and everything else comes out by the seed: two seeds disagree on most other texts, so tests can tell them apart.
The toy LLM is random and weighs a tenth in the blend. Tokens are bytes, so every label is a path of many tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertConfig, LlamaConfig

from classifier.base_models import weights_sha256, write_base_manifest
from classifier.bert import BertModel, collate, encode_windows
from classifier.bundle import BundleParts, build_bundle
from classifier.hybrid import Calibration, Cascade, Policy
from classifier.schema import GOLDEN_STATEMENTS, load_schema

TOY_BERT = "toy-bert"
TOY_LLAMA = "toy-llama"
TOY_PROMPT = "Label the text."
HIDDEN = 48
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NEUTRAL = {"emotion": "neutral", "sentiment": "neutral", "stress": "low", "risk": "none"}


def make_tokenizer() -> Any:
    """One token per byte, and control tokens that a text could try to smuggle in."""
    special = ["<pad>", "<cls>", "<sep>", "<mask>", "<unk>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    fast_tokenizer: Any = transformers.PreTrainedTokenizerFast
    tokenizer = fast_tokenizer(
        tokenizer_object=backend,
        pad_token="<pad>",
        cls_token="<cls>",
        sep_token="<sep>",
        mask_token="<mask>",
        unk_token="<unk>",
        eos_token="<|end|>",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_llama(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    size = len(make_tokenizer())
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        # Wide weights: a random model of the usual 0.02 gives every label the same probability.
        initializer_range=0.3,
        max_position_embeddings=4096,
        eos_token_id=5,
        pad_token_id=0,
    )
    model: Any = transformers.LlamaForCausalLM(config)
    return model.eval()


def make_base_models(directory: Path) -> Path:
    """`toy-bert` and `toy-llama` under `directory`; left alone where they are already. Returns `directory`."""
    if (directory / TOY_LLAMA).is_dir():
        return directory
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,
        pad_token_id=0,
    )
    encoder: Any = transformers.BertModel(config)
    toys: dict[str, Any] = {TOY_BERT: encoder.eval(), TOY_LLAMA: make_llama()}
    for name, model in toys.items():
        model.save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
        write_base_manifest(directory / name, source=name)
    return directory


def make_bert_part(
    path: Path, base: Path, *, seed: int = 1, answers: Mapping[str, Mapping[str, str]] | None = None
) -> Path:
    """A full-encoder bert part whose heads give the golden answers and `answers` (text -> labels)."""
    schema = load_schema()
    known = golden_answers() | {text: NEUTRAL | dict(labels) for text, labels in (answers or {}).items()}
    torch.manual_seed(seed)
    model = BertModel.build(base, {dimension.name: len(dimension.names) for dimension in schema.dimensions}).eval()
    tokenizer = make_tokenizer()
    with torch.inference_mode():
        inputs = collate([encode_windows(tokenizer, text, 256)[0] for text in known], tokenizer.pad_token_id)
        features = model.embed(*inputs)
    bias = torch.ones(len(known), 1)
    solver = torch.linalg.pinv(torch.cat([features, bias], dim=1))
    for dimension in schema.dimensions:
        head: Any = model.heads[dimension.name]
        wanted = torch.tensor([dimension.index(labels[dimension.name]) for labels in known.values()])
        target = torch.nn.functional.one_hot(wanted, len(dimension.names)) * 12.0
        with torch.no_grad():
            random = torch.randn(HIDDEN + 1, len(dimension.names)) * 2
            # The random part decides unknown texts; its share in the known ones is solved away.
            weights = random + solver @ (target - torch.cat([features, bias], dim=1) @ random)
            head.weight.copy_(weights[:-1].T)
            head.bias.copy_(weights[-1])
    model.save(path)
    return path


def make_llm_part(path: Path, base: Path, *, seed: int = 1) -> Path:
    """A rank-2 LoRA part on the toy Llama with random weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    adapted: Any = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(path)
    (path / "llm.json").write_text(json.dumps({"max_tokens": 256}), encoding="utf-8")
    return path


def make_rules(path: Path) -> Path:
    """One block rule, one allow rule, one hint rule."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "toy.toml").write_text(TOY_RULES, encoding="utf-8")
    return path


def make_bundle(
    directory: Path,
    *,
    name: str = "toy-1",
    seed: int = 1,
    policy: Policy = "weighted",
    llm: bool = True,
    answers: Mapping[str, Mapping[str, str]] | None = None,
) -> Path:
    """`directory/name`, on base models in `directory/base_models`. Passes the golden check."""
    bases = make_base_models(directory / "base_models")
    work = directory / f".parts-{name}"
    parts = BundleParts(
        name=name,
        policy=policy,
        calibration=make_calibration(),
        bert=make_bert_part(work / "bert", bases / TOY_BERT, seed=seed, answers=answers),
        bert_base=(TOY_BERT, weights_sha256(bases / TOY_BERT, trust_manifest=True)),
        rules=make_rules(work / "rules"),
        prompt=make_prompt(work / "prompt.txt"),
    )
    if llm:
        part = make_llm_part(work / "llm", bases / TOY_LLAMA, seed=seed)
        parts = replace(parts, llm=part, llm_base=(TOY_LLAMA, weights_sha256(bases / TOY_LLAMA, trust_manifest=True)))
    build_bundle(directory / name, parts)
    return directory / name


TOY_RULES = """\
[[rule]]
id = "toy-block"
kind = "block"
literals = ["blockword"]
floor = "high"
emotion = "self_harm_high"

[[rule]]
id = "toy-allow"
kind = "allow"
literals = ["allowword"]
labels = { emotion = "positive", sentiment = "positive", stress = "low", risk = "none" }
builtin = true
rationale = "A word that only tests use."

[[rule]]
id = "toy-hint"
kind = "hint"
literals = ["hintword"]
"""


def make_prompt(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TOY_PROMPT, encoding="utf-8")
    return path


def golden_answers() -> dict[str, dict[str, str]]:
    """Text -> labels; the dimensions that the golden statements leave open are filled in."""
    answers = {}
    for text, emotion, risk in GOLDEN_STATEMENTS:
        stress = {"none": "low", "low": "medium"}.get(risk, "high")
        sentiment = emotion if emotion in ("positive", "neutral") else "negative"
        answers[text] = {"emotion": emotion, "sentiment": sentiment, "stress": stress, "risk": risk}
    return answers


def make_calibration() -> Calibration:
    """BERT nine to one, so that the LLM takes part and the solved answers stand."""
    schema = load_schema()
    return replace(
        Calibration.identity(schema),
        weight={name: {"bert": 0.9, "llm": 0.1} for name in schema.names},
        cascade=Cascade.uniform(schema, 0.9, risk_hint=0.1),
    )

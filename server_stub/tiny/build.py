"""Build the tiny checkpoint that training starts from: architecture, tokenizer, chat template, untrained weights.

The architecture, the token names and the chat template's structure are those of the model behind AutoGLM-Phone-9B
(``Glm4vForConditionalGeneration``); the sizes are small. The same seed and the same library versions give the same
files, byte for byte.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from .lessons import sentences

__all__ = ["SEED", "build"]

SEED = 20251211

WORDS = 2000
"""Entries of the vocabulary that BPE learns; the control tokens come after them."""

END_OF_TEXT = "<|endoftext|>"

CONTROL_TOKENS = (
    END_OF_TEXT,
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|image|>",
    "<|video|>",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
)
"""In the real model's order (ids 151329 to 151348), all special: a server removes them from the text unless the
request says ``skip_special_tokens: false``."""

END_TOKENS = (END_OF_TEXT, "<|user|>", "<|observation|>", "</answer>")

CHAT_TEMPLATE = """\
[gMASK]<sop>
{%- for message in messages %}
{%- if message.role in ('system', 'user', 'assistant') %}
{{- '<|' + message.role + '|>\\n' }}
{%- if message.content is string %}
{{- message.content }}
{%- else %}
{%- for part in message.content or [] %}
{%- if part.type == 'image' %}
{{- '<|begin_of_image|><|image|><|end_of_image|>' }}
{%- elif part.type == 'video' %}
{{- '<|begin_of_video|><|video|><|end_of_video|>' }}
{%- elif part.type == 'text' %}
{{- part.text }}
{%- endif %}
{%- endfor %}
{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>\\n' }}
{%- endif %}"""
"""Neither ``tools`` nor the role ``tool`` are rendered: the real model's template does not either."""

IMAGE_PROCESSOR = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "merge_size": 2,
    "patch_size": 14,
    "processor_class": "Glm4vProcessor",
    "resample": 3,
    "rescale_factor": 1 / 255,
    # Pixels of two frames: a phone's screenshot is scaled to about 112 x 224 and becomes 32 tokens.
    "size": {"shortest_edge": 12544, "longest_edge": 50176},
    "temporal_patch_size": 2,
}


def build(out: Path, *, seed: int = SEED) -> None:
    """Write the checkpoint to the folder ``out``, which is made if it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in CONTROL_TOKENS}
    tokenizer.save_pretrained(out)
    _model(ids, len(tokenizer), seed).save_pretrained(out)
    _write_json(out / "preprocessor_config.json", {**IMAGE_PROCESSOR, "image_processor_type": "Glm4vImageProcessor"})
    _write_json(
        out / "video_preprocessor_config.json", {**IMAGE_PROCESSOR, "video_processor_type": "Glm4vVideoProcessor"}
    )
    _write_json(out / "generation_config.json", _generation(ids))


def _tokenizer() -> Any:
    byte_level = pre_tokenizers.ByteLevel
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = byte_level(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=WORDS, initial_alphabet=sorted(byte_level.alphabet()), show_progress=False)
    bpe.train_from_iterator(sentences(), trainer)
    bpe.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROL_TOKENS])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        extra_special_tokens=list(CONTROL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
        processor_class="Glm4vProcessor",
    )


def _model(ids: dict[str, int], vocabulary: int, seed: int) -> Any:
    text = {
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,  # heads of 32: the smallest that vLLM's CPU attention supports
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "eos_token_id": [ids[token] for token in END_TOKENS],
        "pad_token_id": ids[END_OF_TEXT],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [2, 3, 3],  # adds up to half of the rotary half of a head; the real model: [8, 12, 12]
        },
    }
    vision = {
        "depth": 3,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "out_hidden_size": text["hidden_size"],
        "patch_size": 14,
    }
    config = transformers.Glm4vConfig(
        text_config=text,
        vision_config=vision,
        image_start_token_id=ids["<|begin_of_image|>"],
        image_end_token_id=ids["<|end_of_image|>"],
        video_start_token_id=ids["<|begin_of_video|>"],
        video_end_token_id=ids["<|end_of_video|>"],
        image_token_id=ids["<|image|>"],
        video_token_id=ids["<|video|>"],
        dtype="float32",
    )
    torch.manual_seed(seed)
    model = transformers.Glm4vForConditionalGeneration(config)
    with torch.no_grad():
        _initialise(model)
    return model


def _initialise(model: Any) -> None:
    """Start wide, as a narrow model needs, and with places that are far from one another when they are far apart."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1 if "embed_tokens" in name else 0.04)
    visual = model.model.visual
    pixels = visual.patch_embed.proj.weight
    torch.nn.init.normal_(pixels, std=1 / math.sqrt(pixels[0].numel()))
    places = visual.embeddings.position_embedding.weight
    places.copy_(_waves(side=math.isqrt(places.shape[0]), size=places.shape[1]))


def _waves(*, side: int, size: int) -> Any:
    """Sines and cosines of row and column, from a quarter of a wave to six over the picture.

    From random vectors, the vision tower had not found the place of anything after 300 steps; from these it has.
    """
    frequencies = 2 * math.pi * torch.logspace(math.log10(0.25), math.log10(6), size // 4)
    angles = (torch.arange(side)[:, None] + 0.5) / side * frequencies
    line = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return torch.cat([rows, columns], -1).reshape(side * side, size)


def _generation(ids: dict[str, int]) -> dict[str, Any]:
    return {
        "do_sample": True,
        "eos_token_id": [ids[token] for token in END_TOKENS],
        "pad_token_id": ids[END_OF_TEXT],
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

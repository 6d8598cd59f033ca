"""Build the tiny checkpoint: ``python -m server_stub.tiny.build OUT_DIR``, where torch and transformers are installed.

The architecture, the token names and the chat template's structure are those of the model behind AutoGLM-Phone-9B
(``Glm4vForConditionalGeneration``); the sizes are small and the weights random. What it says is noise, how it is said
is real: prompts with images, special tokens, ends of turn. The same seed and the same library versions give the same
files, byte for byte.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from .sentences import sentences

__all__ = ["SEED", "build"]

SEED = 20251211

WORDS = 640
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
    tokenizers, transformers = import_module("tokenizers"), import_module("transformers")
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = byte_level(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=WORDS, initial_alphabet=sorted(byte_level.alphabet()), show_progress=False
    )
    bpe.train_from_iterator(sentences(), trainer)
    bpe.add_special_tokens([tokenizers.AddedToken(token, normalized=False) for token in CONTROL_TOKENS])
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
    torch, transformers = import_module("torch"), import_module("transformers")
    text = {
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,  # heads of 32: the smallest that vLLM's CPU attention supports
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "initializer_range": 0.1,  # wide, so that greedy answers depend on the prompt and never on rounding
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
        "depth": 2,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "out_hidden_size": text["hidden_size"],
        "patch_size": 14,
        "initializer_range": 0.1,
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
    return transformers.Glm4vForConditionalGeneration(config)


def _generation(ids: dict[str, int]) -> dict[str, Any]:
    return {
        "do_sample": True,
        "eos_token_id": [ids[token] for token in END_TOKENS],
        "pad_token_id": ids[END_OF_TEXT],
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(prog="python -m server_stub.tiny.build", description=build.__doc__)
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args(argv)
    build(arguments.out, seed=arguments.seed)


if __name__ == "__main__":
    main()

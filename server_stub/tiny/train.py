"""Teach the tiny model what ``lessons.py`` says: ``python -m server_stub.tiny.train OUT_DIR``.

It needs torch, transformers and this package, no GPU. Two aids that are no part of the finished model make it learn in
minutes what it did not learn in hours:

- Extra heads on the picture's tokens tell the colour of the button that covers each of them, and where that button's
  centre is. The vision tower learns from every token, not from one place per screen.
- One attention head of layer 1 is told where to look when the model names a colour: at the tokens of that button. One
  of layer 2 is told to look back at the colour's name when the place is due. Which button a word means is thus shown,
  where otherwise it had to be found among all buttons by chance.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .build import SEED, build
from .lessons import COLOR_WORDS, GRID, SEEING, SPEAKING, Lesson, lesson
from .pictures import SIZES, Picture, draw, patches

__all__ = ["STAGES", "Stage", "teach", "train"]

BATCH = 32
COVERED = 0.25
"""A token belongs to a button that covers at least this share of it."""

BINS = 1000 // GRID
LOOKING_LAYER, RECALLING_LAYER = 1, 2


@dataclass(frozen=True)
class Example:
    """One lesson as tokens, and where in it the eyes should be."""

    prompt: list[int]
    answer: list[int]
    picture: Picture | None
    shares: Tensor | None
    """How much of each of the picture's tokens the named button covers; None if the answer is no place."""
    word: int
    """Index of the token that names the colour."""
    places: tuple[int, ...]
    """Indices of the tokens after which a number of the place comes."""


@dataclass(frozen=True)
class Batch:
    """Examples of one picture size, padded to one length."""

    examples: list[Example]
    tokens: Tensor
    expected: Tensor
    """The answers' tokens, moved one to the left; -100 elsewhere."""
    present: Tensor
    pixels: Tensor | None
    grid: Tensor


class Speech:
    """The tokenizer, and the tokens that training has to know."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.image: int = tokenizer.convert_tokens_to_ids("<|image|>")
        self.padding: int = tokenizer.pad_token_id
        self.numbers = [self._one(str(number)) for number in range(0, 1000, GRID)]
        self._before_number = {self.tokens("element=[20")[-2], self._one(",")}
        words = {word for names in COLOR_WORDS.items() for word in names}
        self._colors = {
            number
            for token, number in tokenizer.get_vocab().items()
            if any(word in tokenizer.convert_tokens_to_string([token]) for word in words)
        }

    def tokens(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def _one(self, text: str) -> int:
        [token] = self.tokens(text)
        return token

    def example(self, lesson: Lesson, picture: Picture) -> Example:
        """Write a lesson about a picture in tokens."""
        shares, answer = None, lesson.answer
        if lesson.color is not None:
            index = [box.color for box in picture.boxes].index(lesson.color)
            x, y = (GRID * _bin(share) for share in picture.boxes[index].center)
            shares, answer = picture.shares[index], answer.format(x=x, y=y)
        rows, columns = picture.tokens
        prompt = self.tokens(self._prompt(lesson, rows * columns))
        said = self.tokens(f"<think>{lesson.reasoning}</think><answer>{answer}</answer>")
        word = 0
        places: tuple[int, ...] = ()
        if shares is not None:
            word = len(prompt) + next(index for index, token in enumerate(said) if token in self._colors)
            places = tuple(
                len(prompt) + index
                for index, (token, after) in enumerate(pairwise(said))
                if token in self._before_number and after in self.numbers
            )
        return Example(prompt, said, picture if lesson.picture else None, shares, word, places)

    def _prompt(self, lesson: Lesson, image_tokens: int) -> str:
        rendered: str = self.tokenizer.apply_chat_template(
            [{"role": message["role"], "content": _flat(message["content"])} for message in lesson.messages],
            tokenize=False,
            add_generation_prompt=True,
        )
        return rendered.replace("<|image|>", "<|image|>" * image_tokens)


class Teacher(nn.Module):
    """The model with the aids that it learns by."""

    def __init__(self, model: Any, speech: Speech) -> None:
        super().__init__()
        self.model = model
        self.speech = speech
        features = model.config.vision_config.out_hidden_size
        self.color = nn.Linear(features, 1 + len(COLOR_WORDS))
        self.across, self.down = nn.Linear(features, BINS), nn.Linear(features, BINS)
        self._attention: dict[int, Tensor] = {}
        for number in (LOOKING_LAYER, RECALLING_LAYER):
            layer = model.model.language_model.layers[number].self_attn
            layer.register_forward_hook(
                lambda _, __, output, number=number: self._attention.update({number: output[1]})
            )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses, by name."""
        seen, features = None, None
        if batch.pixels is not None:
            seen = self.model.model.get_image_features(batch.pixels, batch.grid, return_dict=True)
            features = torch.cat(seen.pooler_output)
        hidden = self.model.model(
            input_ids=batch.tokens,
            attention_mask=batch.present,
            mm_encoder_outputs={"image": seen} if seen else {},
            image_grid_thw=batch.grid if seen else None,
            mm_token_type_ids=batch.tokens.eq(self.speech.image).int(),
        ).last_hidden_state
        losses = self._said(batch, hidden) | self._attended(batch)
        return losses | (self._seen(batch, features) if features is not None else {})

    def _said(self, batch: Batch, hidden: Tensor) -> dict[str, Tensor]:
        """The answer's words must be right; its numbers should at least be near."""
        counted = batch.expected != -100
        chances = self.model.lm_head(hidden[counted]).log_softmax(-1)
        expected = batch.expected[counted]
        place = torch.zeros_like(counted)
        for row, example in enumerate(batch.examples):
            place[row, list(example.places)] = True
        is_place = place[counted]
        words = -chances[~is_place].gather(1, expected[~is_place, None]).mean()
        if not is_place.any():
            return {"words": words}
        numbers = torch.tensor(self.speech.numbers)
        right = (expected[is_place, None] == numbers).int().argmax(1)
        return {"words": words, "numbers": _near(chances[is_place][:, numbers], right)}

    def _attended(self, batch: Batch) -> dict[str, Tensor]:
        """One head looks at the button when its colour is named, another at that name when the place is due."""
        looked, recalled = [], []
        for row, example in enumerate(batch.examples):
            if example.shares is None:
                continue
            start = example.prompt.index(self.speech.image)
            at = self._attention[LOOKING_LAYER][row, 0, example.word, start : start + len(example.shares)]
            belongs = example.shares >= min(COVERED, example.shares.max().item())
            looked.append(at[belongs].sum())
            recalled += [self._attention[RECALLING_LAYER][row, 0, place, example.word] for place in example.places]
        if not looked:
            return {}
        return {"look": _surprise(torch.stack(looked)), "recall": _surprise(torch.stack(recalled))}

    def _seen(self, batch: Batch, features: Tensor) -> dict[str, Tensor]:
        """Each of the picture's tokens knows the colour of its button, and where that button's centre is."""
        pictures = [example.picture for example in batch.examples if example.picture]
        colors, centers = zip(*(_labels(picture) for picture in pictures), strict=True)
        color, center = torch.cat(colors), torch.cat(centers)
        known = color > 0
        losses = {"color": cross_entropy(self.color(features), color)}
        if known.any():
            x, y = center[known].unbind(1)
            losses["x"] = _near(self.across(features[known]).log_softmax(-1), x)
            losses["y"] = _near(self.down(features[known]).log_softmax(-1), y)
        return losses


@dataclass(frozen=True)
class Stage:
    """A part of the training, from one checkpoint to the next."""

    steps: int
    learning_rate: float
    kinds: dict[str, float]
    """How often each kind of lesson is given."""
    importance: dict[str, float]
    """How much each loss counts; those that are not named do not."""


_SPOKEN = {"words": 1.0, "numbers": 1.5, "look": 0.5, "recall": 0.2}

STAGES = (
    Stage(2000, 1.5e-3, SEEING, {**_SPOKEN, "color": 1.0, "x": 0.5, "y": 0.5}),
    # Seeing is learned by then; the names of apps want more practice than one lesson in fifteen.
    Stage(600, 6e-4, SPEAKING, _SPOKEN),
)


def train(out: Path, *, seed: int = SEED, stages: Sequence[Stage] = STAGES) -> None:
    """Build the model, teach it, and write the checkpoint to the folder ``out``."""
    torch.set_num_threads(1)  # sums are then taken in one order, and the same seed gives the same weights
    build(out, seed=seed)
    for number, stage in enumerate(stages):
        teach(out, stage, seed=seed + number)


def teach(folder: Path, stage: Stage, *, seed: int) -> None:
    """Give the checkpoint in the folder one stage of its training."""
    speech = Speech(transformers.AutoTokenizer.from_pretrained(folder))
    model = transformers.Glm4vForConditionalGeneration.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation={"text_config": "eager"},  # the one that gives out its attention
    )
    torch.manual_seed(seed)
    _go_through(stage, Teacher(model, speech), _batches(speech, Random(seed), stage))
    model.to(torch.bfloat16).save_pretrained(folder)


def _go_through(stage: Stage, teacher: Teacher, batches: Iterator[Batch]) -> None:
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=stage.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, stage.learning_rate, total_steps=stage.steps, pct_start=0.1
    )
    start, recent = time.monotonic(), dict.fromkeys(stage.importance, math.nan)
    for step, batch in enumerate(batches, 1):
        losses = {name: loss for name, loss in teacher(batch).items() if name in stage.importance}
        optimizer.zero_grad()
        torch.stack([stage.importance[name] * loss for name, loss in losses.items()]).sum().backward()
        nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent |= {name: _smoothed(recent[name], loss.item()) for name, loss in losses.items()}
        if step % 50 == 0:
            shown = "  ".join(f"{name} {loss:.3f}" for name, loss in recent.items())
            print(f"{step:5} of {stage.steps}, {time.monotonic() - start:4.0f} s  {shown}", file=sys.stderr)


def _batches(speech: Speech, random: Random, stage: Stage) -> Iterator[Batch]:
    """In the second half, one in ten has the whole system prompt, which is long."""
    for step in range(stage.steps):
        whole_prompt = step > stage.steps // 2 and step % 10 == 0
        height, width = random.choice(SIZES)
        examples = []
        for _ in range(BATCH // 8 if whole_prompt else BATCH):
            picture = draw(random, height, width)
            colors = tuple(box.color for box in picture.boxes)
            taught = lesson(random, colors, kinds=stage.kinds, whole_prompt=whole_prompt)
            examples.append(speech.example(taught, picture))
        yield _batch(examples, speech.padding)


def _batch(examples: list[Example], padding: int) -> Batch:
    length = max(len(example.prompt) + len(example.answer) for example in examples)
    tokens = torch.full((len(examples), length), padding)
    expected = torch.full((len(examples), length), -100)
    present = torch.zeros(len(examples), length, dtype=torch.long)
    for row, example in enumerate(examples):
        said = torch.tensor([*example.prompt, *example.answer])
        tokens[row, : len(said)] = said
        expected[row, len(example.prompt) - 1 : len(said) - 1] = said[len(example.prompt) :]
        present[row, : len(said)] = 1
    pictures = [example.picture for example in examples if example.picture]
    pixels = torch.cat([patches(picture.pixels) for picture in pictures]) if pictures else None
    grid = torch.tensor([[1, 2 * rows, 2 * columns] for rows, columns in (picture.tokens for picture in pictures)])
    return Batch(examples, tokens, expected, present, pixels, grid)


def _labels(picture: Picture) -> tuple[Tensor, Tensor]:
    """For each token, the number of its button's colour (0: none), and the bins of that button's centre."""
    rows, columns = picture.tokens
    if not picture.boxes:
        return torch.zeros(rows * columns, dtype=torch.long), torch.zeros(rows * columns, 2, dtype=torch.long)
    share, button = picture.shares.max(0)
    names = list(COLOR_WORDS)
    colors = torch.tensor([1 + names.index(box.color) for box in picture.boxes])[button]
    centers = torch.tensor([[_bin(x), _bin(y)] for x, y in (box.center for box in picture.boxes)])[button]
    return torch.where(share > COVERED, colors, 0), centers


def _near(chances: Tensor, right: Tensor) -> Tensor:
    """Cross entropy with a target that is a bell of one bin's width around the right bin: near is better than far."""
    distance = torch.arange(BINS) - right[:, None]
    bell = (-0.5 * distance.square()).exp()
    return -(bell / bell.sum(1, keepdim=True) * chances).sum(1).mean()


def _surprise(attention: Tensor) -> Tensor:
    return -(attention + 1e-6).log().mean()


def _bin(share: float) -> int:
    return min(BINS - 1, round(share * BINS))


def _smoothed(before: float, now: float) -> float:
    return now if math.isnan(before) else 0.95 * before + 0.05 * now


def _flat(content: Any) -> str:
    """The text of a message as the chat template writes it."""
    if isinstance(content, str):
        return content
    picture = "<|begin_of_image|><|image|><|end_of_image|>"
    return "".join(picture if part["type"] == "image_url" else part["text"] for part in content)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m server_stub.tiny.train", description=train.__doc__)
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, help="of each stage, to try it (default: those of the shipped weights)")
    options = parser.parse_args(arguments)
    stages = [replace(stage, steps=options.steps) for stage in STAGES] if options.steps else STAGES
    train(options.out, seed=options.seed, stages=stages)


if __name__ == "__main__":
    main()

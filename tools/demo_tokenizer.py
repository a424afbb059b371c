# SPDX-License-Identifier: Apache-2.0
"""The demo model's SentencePiece tokenizer and the prompt it is trained on.

LLaMA's conventions throughout: BPE with byte fallback, identity normalisation, a dummy
prefix, `<unk>` 0, `<s>` 1, `</s>` 2. `USER:` and `ASSISTANT:` are cut as LLaMA's own
vocabulary cuts them (`▁US ER :`, `▁A SS IST ANT :`), so that "the fifth token from the
end of the prompt" names the same piece as in LLaVA-1.5.
"""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import product

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as proto

import demo_scenes as scenes

BOS, EOS = 1, 2
ROW_MULTIPLE = 64  # llava-1.5 pads its embedding to a multiple of 64 rows
# Merges that the corpus does not teach, in the order in which they may be applied.
ROLE_PIECES = ("SS", "ST", "AN", "IST", "ANT", "▁A", "US", "ER", "▁US")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;?!'\"-()"


def _corpus() -> list[str]:
    """Every question and the words of every answer.

    A question follows a newline, not a space, so its first word must also be a piece
    without `▁`: the bar stands for the newline, and script splitting keeps it apart.
    """
    colors, shapes, places = scenes.COLOR_NAMES, scenes.SHAPE_NAMES, scenes.PLACES
    questions = [scenes.DESCRIBE] * 40
    questions += [f"What color is the {s}?" for s in shapes] * 8
    questions += [f"What {k} is the object {p}?" for k, p in product(("color", "shape"), places)] * 6
    questions += [f"What shape is the {c} object?" for c in colors] * 8
    questions += [f"Where is the {c} {s}?" for c, s in product(colors, shapes)]
    questions += [f"How many {c} objects are there?" for c in colors] * 12
    questions += [f"How many {s} are there?" for s in scenes.SHAPES.values()] * 8
    questions += [f"Is there {a} {s}?" for a, s in product(("a", "an"), shapes)] * 6
    questions += [f"Is there a {c} object?" for c in colors] * 2
    answers = [f"It is {c}." for c in colors] * 12
    answers += [f"It is a {s}." for s in shapes] * 6
    answers += [f"It is {p}." for p in places] * 6
    answers += [f"I count {n}." for n in scenes.NUMBERS] * 80
    answers += ["Yes, there is.", "No, there is not."] * 100
    answers += [
        f"The image shows a {c} {s} {p}, an orange {s} and a {s} on a {b} background."
        for c, s, p, b in product(colors, shapes, places, scenes.BACKGROUNDS)
    ]
    return ["|" + question for question in questions] + questions + answers


def train_tokenizer() -> bytes:
    """The bytes of `tokenizer.model`; deterministic, as its corpus is fixed."""
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(_corpus()),
        model_writer=out,
        model_type="bpe",
        vocab_size=530,
        byte_fallback=True,
        add_dummy_prefix=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        character_coverage=1.0,
        required_chars=LETTERS,
        unk_id=0,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=-1,
        num_threads=1,
        minloglevel=1,
    )
    model = proto.ModelProto.FromString(out.getvalue())
    _add_role_pieces(model)
    return model.SerializeToString()


def _add_role_pieces(model: proto.ModelProto) -> None:
    """Inserts the role pieces between the learned merges and the single characters."""
    known = {piece.piece for piece in model.pieces}
    first_character = next(
        i for i, p in enumerate(model.pieces) if p.type == p.NORMAL and len(p.piece) == 1
    )
    pieces = list(model.pieces)
    added = [
        proto.ModelProto.SentencePiece(piece=text, type=proto.ModelProto.SentencePiece.NORMAL)
        for text in ROLE_PIECES
        if text not in known
    ]
    pieces[first_character:first_character] = added
    rank = 0
    for piece in pieces:
        if piece.type == piece.NORMAL:  # a BPE score is minus the rank of its merge
            piece.score = -float(rank)
            rank += 1
    del model.pieces[:]
    model.pieces.extend(pieces)
    model.trainer_spec.vocab_size = len(pieces)


class Prompt:
    """Token ids of prompts and answers, cut around `<image>` as LLaVA does."""

    def __init__(self, model: bytes) -> None:
        self.sp = spm.SentencePieceProcessor(model_proto=model)
        self.image = self.sp.vocab_size()
        self.pad = self.image + 1
        self.rows = -(-(self.pad + 1) // ROW_MULTIPLE) * ROW_MULTIPLE
        self.question = lru_cache(None)(self._question)
        self.answer = lru_cache(1 << 16)(self._answer)

    def before_image(self) -> list[int]:
        return [BOS] + self.sp.encode("USER: ")

    def _question(self, text: str) -> list[int]:
        """What follows the image features: newline, question, role."""
        return self.sp.encode(f"\n{text} ASSISTANT:")

    def _answer(self, text: str) -> list[int]:
        return self.sp.encode(text) + [EOS]

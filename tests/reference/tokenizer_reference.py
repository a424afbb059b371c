# SPDX-License-Identifier: Apache-2.0
"""A small SentencePiece model with LLaMA's conventions, and the ids that Hugging Face's `legacy` pipeline gives.

The pipeline is the one in llava-hf/llava-1.5-7b-hf's tokenizer.json: text is cut at added tokens, each piece gets
`▁` in front, spaces become `▁`, then BPE with byte fallback.
"""

from __future__ import annotations

import io
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE

import storage

VOCABULARY = 340
CORPUS = [
    "USER: What is in the picture? ASSISTANT: The picture shows a red circle and two blue squares.",
    "USER: How many shapes are there? ASSISTANT: There are three shapes in the picture.",
    "A chat between a curious user and an artificial intelligence assistant.",
] * 20
ADDED = {
    "<unk>": {},
    "<s>": {},
    "</s>": {},
    "<image>": {},
    "<pad>": {},
    "<left>": {"lstrip": True},
    "<right>": {"rstrip": True},
    "<right>er": {},
    "plain": {"special": False},
}
TEXTS = [
    "USER: <image>\nWhat is in the picture? ASSISTANT:",
    "USER: How many shapes? ASSISTANT:",
    "",
    " ",
    "\n",
    "  two  spaces, and three   ",
    "tab\tand\n\nempty line\r\n",
    "Größe, naïve façade, Ελληνικά, русский",
    "日本語と中文",
    "🙂 and 👩‍👩‍👧, flags 🇩🇪",
    "<image>",
    " <image> ",
    "<image><image>x",
    "It ends.</s>Or not.",
    "▁ is the space symbol",
    "1234 7.5% $3",
    "<imag<image>e> < image >",
    "a <left> b <right>   c <right>er d",
    "this is plain text",
    "no\u0000thing",
]


def _train() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        character_coverage=1.0,
        pad_id=-1,
        num_threads=1,
        minloglevel=1,
    )
    return model.getvalue()


def _merges(pieces: Any) -> list[tuple[str, str]]:
    """Every way in which two pieces make a third, the third's score deciding the order."""
    ids = {piece.piece: number for number, piece in enumerate(pieces)}
    merges = []
    for piece in pieces:
        if piece.type != piece.NORMAL:
            continue
        cuts = [(piece.piece[:i], piece.piece[i:]) for i in range(1, len(piece.piece))]
        cuts = [cut for cut in cuts if cut[0] in ids and cut[1] in ids]
        merges += [(-piece.score, ids[left], ids[right], left, right) for left, right in cuts]
    return [(left, right) for _, _, _, left, right in sorted(merges)]


def _pipeline(model: bytes) -> Tokenizer:
    pieces = sentencepiece_model_pb2.ModelProto.FromString(model).pieces
    vocabulary = {piece.piece: number for number, piece in enumerate(pieces)}
    bpe = BPE(vocab=vocabulary, merges=_merges(pieces), fuse_unk=True, byte_fallback=True, unk_token="<unk>")
    pipeline = Tokenizer(bpe)
    pipeline.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    pipeline.decoder = decoders.Sequence(steps)
    for content, flags in ADDED.items():
        options = {"special": True} | flags
        pipeline.add_tokens([AddedToken(content, normalized=False, **options)])
    return pipeline


def make() -> None:
    directory = storage.fresh_directory("tokenizer")
    model = _train()
    (directory / "tokenizer.model").write_bytes(model)
    pipeline = _pipeline(model)
    decoder = {
        str(pipeline.token_to_id(content)): {"content": content, "lstrip": False, "rstrip": False, "special": True} | flags
        for content, flags in ADDED.items()
    }
    storage.write_json(directory / "tokenizer_config.json", {"add_bos_token": True, "added_tokens_decoder": decoder})
    cases = []
    for text in TEXTS:
        ids = pipeline.encode(text, add_special_tokens=False).ids
        cases.append({"text": text, "ids": ids, "decoded": pipeline.decode(ids, skip_special_tokens=True)})
    storage.write_json(directory / "reference.json", {"size": pipeline.get_vocab_size(), "cases": cases})

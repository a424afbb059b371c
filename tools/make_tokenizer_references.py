#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains one small tokenizer of each kind on made-up text, and says which ids the tokenizers library makes of random
strings with it. tests/text holds ours to them.

    make_tokenizer_references.py [--out DIR] [--cases N] [--seed S]     what is stored (default: tests/text/data)
    make_tokenizer_references.py --offline DIR --count N [--seed S]     as many as wanted, for tokenize_check
    make_tokenizer_references.py --tokenizer FILE --offline DIR --count N    the same for any tokenizer.json

Needs tokenizers (0.23), sentencepiece and protobuf.
"""

import argparse
import base64
import json
import random
import struct
import sys
import tempfile
import unicodedata
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = Path(__file__).resolve().parents[1]

# Blocks of letters, each with its signs, of scripts that people write in.
SCRIPTS = {
    "latin": (0x61, 0x7A), "latin_1": (0xC0, 0xFF), "latin_extended": (0x100, 0x24F), "greek": (0x370, 0x3FF),
    "cyrillic": (0x400, 0x4FF), "armenian": (0x531, 0x58F), "hebrew": (0x591, 0x5F4), "arabic": (0x600, 0x6FF),
    "devanagari": (0x900, 0x97F), "bengali": (0x980, 0x9FE), "gurmukhi": (0xA01, 0xA76), "tamil": (0xB82, 0xBFA),
    "telugu": (0xC00, 0xC7F), "thai": (0xE01, 0xE5B), "tibetan": (0xF00, 0xFDA), "georgian": (0x10A0, 0x10FF),
    "hangul_jamo": (0x1100, 0x11FF), "ethiopic": (0x1200, 0x137C), "khmer": (0x1780, 0x17F9),
    "vietnamese": (0x1EA0, 0x1EF9), "hiragana": (0x3041, 0x309F), "katakana": (0x30A0, 0x30FF),
    "halfwidth": (0xFF01, 0xFFDC), "han": (0x4E00, 0x9FA5), "hangul": (0xAC00, 0xD7A3),
}
SPACES = [" ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n", "\n ", "\u00a0", "\u3000", "\u2003", "\u200b",
          "\u2028", "\x0b", "\x0c", "\x85", "\u1680", "\u202f", "\ufeff"]
EMOJI = ["\U0001f600", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2764\ufe0f", "\U0001f1e9\U0001f1ea",
         "1\ufe0f\u20e3", "\u263a", "\U0001f9d1\u200d\U0001f680"]
CODE = ["def f(x):\n    return x**2\n", "for (int i = 0; i < n; ++i) {\n\t\ta[i] += b[i];\n}", "<div class=\"a\">&nbsp;</div>",
        "SELECT * FROM t WHERE a>=10;", "if (a && !b || c) { d->e(); }", "http://x.org/a?b=c&d=%20", "\\frac{1}{2}", "a_b__c",
        "camelCaseWord", "0x1F", "#include <a.h>\r\n", "// ---- ####"]
ENGLISH = ("the of and to in is it's don't we'll they've I'm he'd you're CAN'T WE'LL time model image picture describe "
           "what there people water house small green under over question answer token neuron layer").split()
NUMBERS = ["0", "7", "42", "123", "1234", "12345678", "3.14159", "1,000,000", "\u00b2", "\u00bd", "\u0663\u0664", "\u2167", "\u2460",
           "\u0967\u0968", "1st", "2026-11-28"]
PUNCTUATION = list(".,;:!?-_()[]{}'\"`~@#$%^&*+=|\\/<>") + ["...", "\u2014", "\u201c", "\u201d", "\u3002", "\u00bf", "\u2026", "\u20ac", "''", "'\u017f"]
CONTROLS = ["\x00", "\x01", "\x1f", "\x7f", "\ufffd", "\u00ad", "\u200d", "\u200e", "\u061c", "\u0301", "\u0308\u0301", "\u093c", "\u1100\u1161\u11a8",
            "e\u0301", "A\u030a", "\ufb01", "\u212b", "\u1e9b\u0323", "\u0130", "\u03a3", "\u2581", "\u2581\u2581", "<0x41>", "\ufdfa", "\u0345"]
ADDED = ["<s>", "</s>", "<unk>", "<image>", "<|im_start|>", "<|im_end|>", "<left>", "<right>", "<both>", "[word]", "word", "New",
         "no\u0301w", "<|im_", "<image", "  "]


def is_old(c):
    """Whether Unicode assigned `c` long ago and has not changed its mind: tables differ in age."""
    return unicodedata.ucd_3_2_0.category(c) == unicodedata.category(c) not in ("Cn", "Cs", "Co")


def script_letters():
    """Letters and marks by script."""
    return {name: list(filter(is_old, map(chr, range(first, last + 1)))) for name, (first, last) in SCRIPTS.items()}


class Strings:
    """Random strings of everything that texts are made of."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.letters = script_letters()
        # Each script has words, some of which come often: without them nothing could be learned.
        self.words = {name: ["".join(self.random.choices(some, k=self.random.randint(1, 7))) for _ in range(60)]
                      for name, some in self.letters.items()}
        self.assigned = list(filter(is_old, map(chr, range(0x20, 0x30000))))

    def word(self, scripts=None):
        r = self.random
        if scripts == [] or r.random() < 0.4:
            word = r.choice(ENGLISH)
            return r.choice([word, word, word.capitalize(), word.upper()])
        words = self.words[r.choice(scripts or list(self.words))]
        return words[min(int(r.expovariate(0.15)), len(words) - 1)]

    def piece(self):
        r = self.random
        kind = r.random()
        if kind < 0.5:
            return self.word()
        for bound, some in ((0.62, SPACES), (0.68, NUMBERS), (0.78, PUNCTUATION), (0.81, EMOJI), (0.84, CODE), (0.88, CONTROLS),
                            (0.95, ADDED)):
            if kind < bound:
                return r.choice(some)
        return "".join(r.choices(self.assigned, k=r.randint(1, 4)))

    def text(self):
        r = self.random
        glue = r.choice(["", " ", " ", " "])
        return glue.join(self.piece() for _ in range(r.choice([0, 1, 1, 2, 3, 5, 8, 13, 21])))

    def training(self, count, scripts=None):
        """`scripts`: of these alone; none of them is English alone."""
        return [" ".join(self.word(scripts) for _ in range(12)) + "." for _ in range(count)]


def added_tokens():
    """One of each flag."""
    return [AddedToken("<image>", special=True, normalized=False), AddedToken("<|im_start|>", special=True, normalized=False),
            AddedToken("<|im_end|>", special=True, normalized=False),
            AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False),
            AddedToken("<both>", lstrip=True, rstrip=True, special=True, normalized=False),
            AddedToken("[word]", single_word=True, normalized=False), AddedToken("word", single_word=True),
            AddedToken("New"), AddedToken("n\u00f3w"), AddedToken("  ", normalized=False)]


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_level(strings, split=None, normalizer=None, bos=False, prefix_space=False, **options):
    model = Tokenizer(models.BPE(**options))
    if normalizer:
        model.normalizer = normalizer
    plain = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=split is None)
    cut = lambda expression: pre_tokenizers.Split(Regex(expression), behavior="isolated", invert=False)
    model.pre_tokenizer = plain if split is None else pre_tokenizers.Sequence([cut(split), plain])
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  special_tokens=["<s>", "</s>"], show_progress=False)
    model.train_from_iterator(strings.training(3000), trainer)
    model.add_tokens(added_tokens())
    model.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)]) if bos else processors.ByteLevel(trim_offsets=False)
    return model


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def sentencepiece_style(strings, pre_tokenizer=None, normalizer=None, strip=True):
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=["<unk>", "<s>", "</s>"] + BYTES, show_progress=False, limit_alphabet=250)
    trained.train_from_iterator(strings.training(3000), trainer)
    learned = json.loads(trained.to_str())["model"]
    model = Tokenizer(models.BPE(learned["vocab"], [tuple(m) for m in learned["merges"]], unk_token="<unk>", fuse_unk=True,
                                 byte_fallback=True))
    if pre_tokenizer:
        model.pre_tokenizer = pre_tokenizer
    if normalizer:
        model.normalizer = normalizer
    chain = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()] + ([decoders.Strip(" ", 1, 0)] if strip else [])
    model.decoder = decoders.Sequence(chain)
    model.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    model.add_special_tokens(["<unk>", "<s>", "</s>"])
    model.add_tokens(added_tokens())
    return model


def charsmap(strings):
    """SentencePiece's form of a few rules of our own: what NFKC does to some characters, longer keys, and removals."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    rules = {}
    for code in list(range(0xFF01, 0xFFDD)) + list(range(0x2460, 0x2474)) + list(range(0xFB00, 0xFB05)) + [0xBD, 0x2122, 0x212B, 0xFDFA]:
        folded = unicodedata.normalize("NFKC", chr(code))
        if folded != chr(code):
            rules[chr(code)] = folded
    for base in "\uff76\uff77\uff78\uff8a":  # half-width kana and its voicing mark become one character
        rules[base + "\uff9e"] = unicodedata.normalize("NFKC", base + "\uff9e")
    for letter in "aeiouAEIOU":
        rules[letter + "\u0301"] = unicodedata.normalize("NFC", letter + "\u0301")
    for code in list(range(1, 9)) + [0x7F, 0xAD, 0x200E]:
        rules[chr(code)] = ""
    for code in (9, 10, 13, 0xA0, 0x3000, 0x2003, 0x200B):
        rules[chr(code)] = " "
    with tempfile.TemporaryDirectory() as directory:
        table = Path(directory, "rules.tsv")
        hexes = lambda text: " ".join(f"{ord(c):X}" for c in text)
        table.write_text("".join(f"{hexes(key)}\t{hexes(rules[key])}\n" for key in sorted(rules)))
        Path(directory, "text").write_text("\n".join(strings.training(500, [])))
        sentencepiece.SentencePieceTrainer.train(input=f"{directory}/text", model_prefix=f"{directory}/m", vocab_size=200,
                                                 normalization_rule_tsv=str(table), minloglevel=2, hard_vocab_limit=False)
        proto = sentencepiece_model_pb2.ModelProto.FromString(Path(directory, "m.model").read_bytes())
    return proto.normalizer_spec.precompiled_charsmap


def unigram(strings, normalizer, pre_tokenizer, byte_fallback):
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>"] + (BYTES if byte_fallback else [])
    trainer = trainers.UnigramTrainer(vocab_size=1000, special_tokens=special, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(strings.training(2000, ["latin_1", "greek", "cyrillic", "hebrew", "thai", "katakana"]), trainer)
    vocabulary = [(token, round(score, 6)) for token, score in json.loads(trained.to_str())["model"]["vocab"]]
    model = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=byte_fallback))
    model.normalizer = normalizer
    model.pre_tokenizer = pre_tokenizer
    model.decoder = decoders.Metaspace() if not byte_fallback else decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    model.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    model.add_special_tokens(["<s>", "</s>"])
    model.add_tokens(added_tokens())
    return model


def steps(strings, pre_tokenizer, normalizer=None, **options):
    """A model that knows the letters of English alone: what it is for is how texts are cut."""
    trained = Tokenizer(models.BPE(unk_token="[UNK]", **options))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    affixes = {key: value for key, value in options.items() if key != "fuse_unk"}
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False, limit_alphabet=120, **affixes)
    trained.train_from_iterator(strings.training(1000), trainer)
    trained.pre_tokenizer = pre_tokenizer
    if normalizer:
        trained.normalizer = normalizer
    trained.add_tokens(added_tokens())
    return trained


def kinds(seed):
    """Each kind's name and a function that makes its tokenizer."""
    strings = Strings(seed)
    metaspace = lambda scheme, split: pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    split = lambda pattern, behavior, invert=False: pre_tokenizers.Split(pattern, behavior, invert)
    llama2 = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    xlnet = normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(),
                                  normalizers.Nmt(), normalizers.Lowercase(), normalizers.Replace(Regex(" {2,}"), " ")])
    bert = normalizers.BertNormalizer()
    return {
        "byte_gpt2": lambda: byte_level(strings),
        "byte_llama3": lambda: byte_level(strings, LLAMA3, bos=True, ignore_merges=True),
        "byte_qwen2": lambda: byte_level(strings, QWEN2, normalizers.NFC()),
        "byte_tekken": lambda: byte_level(strings, TEKKEN, prefix_space=True, ignore_merges=True),
        "metaspace_always": lambda: sentencepiece_style(strings, metaspace("always", False)),
        "metaspace_first": lambda: sentencepiece_style(strings, metaspace("first", True)),
        "metaspace_never": lambda: sentencepiece_style(strings, metaspace("never", True), strip=False),
        "prepend_replace": lambda: sentencepiece_style(strings, normalizer=llama2),
        "unigram_t5": lambda: unigram(strings, normalizers.Sequence([normalizers.Precompiled(charsmap(strings)), normalizers.Strip(left=False, right=True),
                                      normalizers.Replace(Regex(" {2,}"), "\u2581")]), metaspace("always", True), False),
        "unigram_xlnet": lambda: unigram(strings, xlnet, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace("always", True)]), True),
        "steps_bert": lambda: steps(strings, pre_tokenizers.BertPreTokenizer(), bert, continuing_subword_prefix="##"),
        "steps_words": lambda: steps(strings, pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]), normalizers.NFKC(),
                                     end_of_word_suffix="</w>"),
        "steps_split": lambda: steps(strings, pre_tokenizers.Sequence([
            split(Regex(r"\s+"), "removed"), split("a", "merged_with_previous"), split("e", "merged_with_next"), split(Regex(r"[aeiou]+"), "contiguous"),
            split(Regex(r"[^\p{P}]+"), "isolated", True), pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits()]), normalizers.NFD(), fuse_unk=True),
        "steps_falcon": lambda: steps(strings, pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Digits(),
                                      split(Regex("[0-9][0-9][0-9]"), "isolated")])),
    }


def answers(model, text, as_text):
    model.encode_special_tokens = as_text
    ids = model.encode(text, add_special_tokens=False).ids
    return ids, model.decode(ids, skip_special_tokens=True)


def write_offline(model, name, out, count, seed):
    """NAME.json, NAME.texts (each: a flag, its length in 4 bytes, its bytes), NAME.answers (ids and decoded text, in lines)."""
    strings = Strings(seed)
    out.mkdir(parents=True, exist_ok=True)
    model.save(str(out / f"{name}.json"), pretty=False)
    with open(out / f"{name}.texts", "wb") as texts, open(out / f"{name}.answers", "w", encoding="utf-8") as lines:
        for i in range(count):
            text, as_text = strings.text(), i % 5 == 0
            data = text.encode()
            texts.write(struct.pack("<BI", as_text, len(data)) + data)
            ids, decoded = answers(model, text, as_text)
            lines.write(" ".join(map(str, ids)) + "\n" + json.dumps(decoded, ensure_ascii=False) + "\n")


def write_stored(out, cases, seed):
    out.mkdir(parents=True, exist_ok=True)
    stored = {}
    for number, (name, make) in enumerate(kinds(seed).items()):
        model = make()
        model.save(str(out / f"{name}.json"), pretty=False)
        strings = Strings(seed + 1000 + number)
        stored[name] = []
        for i in range(cases):
            text, as_text = strings.text(), i % 5 == 0
            ids, decoded = answers(model, text, as_text)
            stored[name].append([text, as_text, " ".join(map(str, ids))] + ([] if decoded == text else [decoded]))
    (out / "cases.json").write_text(json.dumps(stored, ensure_ascii=False, separators=(",", ":"), indent=0) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "tests/text/data")
    parser.add_argument("--cases", type=int, default=250, help="of each kind")
    parser.add_argument("--offline", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kind", action="append", help="of --offline: one kind alone")
    options = parser.parse_args()
    if options.offline is None:
        write_stored(options.out, options.cases, options.seed)
    elif options.tokenizer:
        write_offline(Tokenizer.from_file(str(options.tokenizer)), options.tokenizer.stem, options.offline, options.count, options.seed)
    else:
        for name, make in kinds(options.seed).items():
            if not options.kind or name in options.kind:
                write_offline(make(), name, options.offline, options.count, options.seed + 500)
                print(name, file=sys.stderr)


if __name__ == "__main__":
    main()

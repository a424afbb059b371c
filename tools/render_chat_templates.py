# SPDX-License-Identifier: Apache-2.0
"""Render chat templates of public models over conversations, for the tests of `corematching::chat`.

    python tools/render_chat_templates.py --templates DIR [--out tests/chat/data] [--only FORMAT ...]

DIR holds the templates, which are not part of this repository: one file FORMAT@ANY_NAME.jinja for each, with the text of
`chat_template` in the tokenizer_config.json (or chat_template.json) of a model that SOURCES names. Of each format,
FORMAT@hub.jinja is rendered and stored; the others of the same format must agree with it on every conversation that asks
for an answer. Printed are the hashes that `known_templates.hpp` lists. Needs jinja2 only, set up as
`transformers.utils.chat_template_utils` sets it up.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = dict[str, Any]

# Where the template of each format is found, and the texts of its tokenizer's first and last token.
SOURCES = {
    "llava-1.5": ("llava-hf/llava-1.5-7b-hf", "<s>", "</s>"),
    "vicuna": ("lm-sys/FastChat, fastchat/conversation.py, vicuna_v1.1", "<s>", "</s>"),
    "llama-2": ("meta-llama/Llama-2-7b-chat-hf", "<s>", "</s>"),
    "llama-3": ("meta-llama/Meta-Llama-3-8B-Instruct", "<|begin_of_text|>", "<|eot_id|>"),
    "llama-3.1": ("meta-llama/Llama-3.1-8B-Instruct", "<|begin_of_text|>", "<|eot_id|>"),
    "llama-3.2": ("meta-llama/Llama-3.2-3B-Instruct", "<|begin_of_text|>", "<|eot_id|>"),
    "mistral-v0": ("mistralai/Mixtral-8x7B-Instruct-v0.1, first revisions", "<s>", "</s>"),
    "mistral-v0-spaced": ("mistralai/Mistral-7B-Instruct-v0.1, first revisions", "<s>", "</s>"),
    "mistral-v1": ("mistralai/Mixtral-8x7B-Instruct-v0.1", "<s>", "</s>"),
    "mistral-v3": ("mistralai/Mistral-7B-Instruct-v0.3", "<s>", "</s>"),
    "mixtral-8x22b": ("mistralai/Mixtral-8x22B-Instruct-v0.1", "<s>", "</s>"),
    "mistral-v3-tekken": ("mistralai/Mistral-Nemo-Instruct-2407", "<s>", "</s>"),
    "mistral-v7": ("mistralai/Mistral-Large-Instruct-2411", "<s>", "</s>"),
    "mistral-v7-tekken": ("GGUF conversions of mistralai/Mistral-Small-24B-Instruct-2501", "<s>", "</s>"),
    "chatml": ("teknium/OpenHermes-2.5-Mistral-7B", "<s>", "<|im_end|>"),
    "chatml-bos": ("NousResearch/Nous-Hermes-2-Mixtral-8x7B-DPO", "<s>", "<|im_end|>"),
    "qwen1.5": ("Qwen/Qwen1.5-0.5B-Chat", "<|endoftext|>", "<|im_end|>"),
    "qwen2": ("Qwen/Qwen2-0.5B-Instruct", "<|endoftext|>", "<|im_end|>"),
    "qwen2.5": ("Qwen/Qwen2.5-7B-Instruct", "<|endoftext|>", "<|im_end|>"),
    "qwen3": ("Qwen/Qwen3-0.6B", "<|endoftext|>", "<|im_end|>"),
    "smollm2": ("HuggingFaceTB/SmolLM2-135M-Instruct", "<|im_start|>", "<|im_end|>"),
    "zephyr": ("HuggingFaceH4/zephyr-7b-beta, TinyLlama/TinyLlama-1.1B-Chat-v1.0", "<s>", "</s>"),
}
# Vicuna has no template of its own; this one says what FastChat's code does.
VICUNA = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + ' ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
TAKES_PARTS = {"llava-1.5"}  # the content of a message is a list of parts, pictures among them
THINKS = {"qwen3"}  # thoughts in answers are treated in a way of their own
# This template leaves the last message open where no answer is asked for, which nothing needs.
ONLY_WITH_PROMPT = {"qwen1.5"}
# Where these see a system text in the middle they drop it without a word; the library refuses it.
DROPS_LATER_SYSTEM = {"llama-2", "vicuna"}
TODAY = datetime(2024, 12, 5)

SYSTEM = "Answer in one line."
QUESTIONS = ["What is this?", "And\nwhat colour?", "Où ça ? 🙂", "Is </s> or <|im_end|> a word?", "2 < 3, [INST] or not?"]
ANSWERS = ["A cat.", "Grey,\n\nI think.", "日本です。", "Neither is.", "It is."]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def turns(count: int) -> list[Message]:
    """`count` questions and the answers between them."""
    messages = []
    for question, answer in zip(QUESTIONS[:count], ANSWERS):
        messages += [user(question), assistant(answer)]
    return messages[:-1]


def text_part(text: str) -> Message:
    return {"type": "text", "text": text}


PICTURE = {"type": "image"}


def conversations() -> list[list[Message]]:
    """Conversations of one to five questions, and what templates treat in ways of their own."""
    plain = [turns(count) for count in range(1, 6)]
    told = [[system(SYSTEM)] + messages for messages in plain]
    blank = "\u00a0\u2003\x1c\x85\u3000"  # what Python's strip removes and isspace does not know
    ended = [turns(2) + [assistant(ANSWERS[1])], [system(SYSTEM)] + turns(1) + [assistant(ANSWERS[0])]]
    edges = [
        [user(f" {blank}\n what? {blank}\t\n"), assistant(f"\n{blank} that. \n"), user(f"\u200b {blank} sure?")],
        [system(f"  {blank}Be brief.{blank} \n"), user(" what?\n")],
        [system("Be brief."), user("")],
        [system(""), user("what?")],
        [user(""), assistant(""), user(" ")],
    ]
    orders = [
        [user("one"), user("two")],
        [assistant("Hello."), user("Hello.")],
        [user("one"), assistant("two"), assistant("three"), user("four")],
        [user("one"), system("Be brief."), user("two")],
        [user("one"), assistant("two"), system("Be brief."), user("three")],
        [system("Be brief."), system("Be very brief."), user("one")],
    ]
    pictures = [
        [{"role": "user", "content": [PICTURE, text_part("What is this?")]}],
        [{"role": "user", "content": [text_part("What is this?"), PICTURE]}],
        [{"role": "user", "content": [PICTURE]}],
        [{"role": "user", "content": [text_part("One"), PICTURE, text_part("or two?"), PICTURE]}],
        [system(SYSTEM), {"role": "user", "content": [PICTURE, text_part("What is this?")]}] + turns(3)[1:],
        turns(2) + [assistant("Yes."), {"role": "user", "content": [PICTURE, text_part("And this?")]}],
    ]
    thought = "<think>\nA cat?\n\n</think>\n\nA cat."
    thoughts = [
        [user("one"), assistant(thought), user("two")],
        [user("one"), assistant(thought)],
        [user("one"), assistant("A dog.\n</think>\n\n\nA cat.\n")],
        [user("What ends with </think>?"), assistant("\nA cat.\n")],
        [user("one"), assistant("<think>\nA</think>\nB</think>\n\nC"), user("two"), assistant(thought), assistant("\nYes.")],
        [user("one"), assistant("<think>\n\n</think>\n\n\nYes."), assistant("Yes.")],
        [assistant(thought)],
    ]
    return plain + told + ended + edges + orders + pictures + thoughts


def with_parts(messages: list[Message]) -> list[Message]:
    as_parts = lambda content: [text_part(content)] if isinstance(content, str) else content
    return [message | {"content": as_parts(message["content"])} for message in messages]


def environment() -> ImmutableSandboxedEnvironment:
    class Generation(jinja2.ext.Extension):
        """The block {% generation %}, which marks an answer and adds nothing to it."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    result = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    result.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    result.globals["raise_exception"] = raise_exception
    result.globals["strftime_now"] = TODAY.strftime
    return result


def fnv1a(text: str) -> int:
    """FNV-1a in 64 bits of what Jinja reads: line ends are line feeds, and one at the end of the text is none."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def cases(name: str, source: str) -> list[dict[str, Any]]:
    """What the template `source` makes of each conversation that the format `name` is held to."""
    _, bos, eos = SOURCES[name]
    template = environment().from_string(source)
    found = []
    for index, messages in enumerate(conversations()):
        has_parts = any(not isinstance(message["content"], str) for message in messages)
        has_thoughts = any("</think>" in message["content"] for message in messages)
        later_system = any(message["role"] == "system" for message in messages[1:])
        if has_parts and name not in TAKES_PARTS or later_system and name in DROPS_LATER_SYSTEM:
            continue
        if has_thoughts and name not in THINKS:
            continue
        for prompt in (True, False):
            if name in ONLY_WITH_PROMPT and (not prompt or messages[-1]["role"] == "assistant"):
                continue
            case: dict[str, Any] = {"conversation": index, "prompt": prompt}
            try:
                case["text"] = template.render(
                    messages=with_parts(messages) if name in TAKES_PARTS else messages, tools=None, documents=None,
                    add_generation_prompt=prompt, bos_token=bos, eos_token=eos)
            except jinja2.TemplateError as refusal:
                case["refused"] = str(refusal)
            found.append(case)
    return found


def asking(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [case for case in found if case["prompt"]]


def write_json(path: Path, value: Any) -> None:
    """One line for each entry of a list, so that a change is seen where it is."""
    if isinstance(value, list):
        text = "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in value) + "\n]\n"
    else:
        head = "".join(f"{json.dumps(key)}: {json.dumps(value[key])},\n" for key in value if key != "cases")
        lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in value["cases"])
        text = "{\n" + head + '"cases": [\n' + lines + "\n]}\n"
    path.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", type=Path, required=True, help="directory of FORMAT@NAME.jinja")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "tests/chat/data")
    parser.add_argument("--only", nargs="+", choices=list(SOURCES), default=list(SOURCES), metavar="FORMAT", help="default: all")
    options = parser.parse_args()

    texts = {path.stem: path.read_bytes().decode() for path in sorted(options.templates.glob("*@*.jinja"))}
    texts["vicuna@hub"] = VICUNA
    missing = [name for name in options.only if f"{name}@hub" not in texts]
    if missing:
        print("no template for", ", ".join(missing), file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "conversations.json", conversations())
    failed = 0
    for name in options.only:
        where, bos, eos = SOURCES[name]
        found = cases(name, texts[f"{name}@hub"])
        write_json(options.out / f"{name}.json", {"source": where, "bos": bos, "eos": eos, "cases": found})
        for variant in sorted(v for v in texts if v.partition("@")[0] == name and name != "vicuna"):
            agrees = asking(cases(name, texts[variant])) == asking(found)
            failed += not agrees
            print(f"{fnv1a(texts[variant]):#018x}  {variant}" + ("" if agrees else "  DISAGREES"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

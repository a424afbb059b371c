#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks a server with OpenAI's chat completions from many clients at once, and says how fast it answered.

    load_server.py URL [--clients 64] [--seconds 300] [--picture FILE...] [--question TEXT] [--max-tokens N] [--pid PID]

Every client asks one question after the other on a connection of its own, every other one streamed; pictures take turns. With
--pid, that of the server on this machine, its resident memory is printed too, and how fast it grows after the first minute. Exits
1 if anything but a complete answer came back. Standard library alone.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import mimetypes
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class Counts:
    """What all clients have seen so far."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    seconds: list[float] = field(default_factory=list)  # of each answer, from the request to its last byte
    first: list[float] = field(default_factory=list)  # of each streamed answer, to the first piece of its text
    tokens: int = 0
    errors: list[str] = field(default_factory=list)

    def answered(self, seconds: float, first: float | None, tokens: int) -> None:
        with self.lock:
            self.seconds.append(seconds)
            self.tokens += tokens
            if first is not None:
                self.first.append(first)

    def failed(self, problem: str) -> None:
        with self.lock:
            self.errors.append(problem)


def data_url(picture: Path) -> str:
    kind = mimetypes.guess_type(picture.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"


def body_of(number: int, arguments: argparse.Namespace, urls: list[str]) -> bytes:
    text = arguments.question.replace("{}", str(number))
    content: str | list[dict] = text  # which is all that some servers take
    if urls:
        content = [{"type": "image_url", "image_url": {"url": urls[number % len(urls)]}}, {"type": "text", "text": text}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": arguments.max_tokens}
    if number % 2:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


def read_stream(reply: http.client.HTTPResponse, began: float) -> tuple[float | None, int]:
    """Seconds to the first piece of text, and how many tokens were said."""
    first, tokens, is_done = None, 0, False
    for line in reply:
        if not line.startswith(b"data: "):
            continue
        data = line[6:].strip()
        if data == b"[DONE]":
            is_done = True
            continue
        event = json.loads(data)
        if "error" in event:
            raise ValueError(f"an error in a stream: {event['error']}")
        pieces = [choice["delta"].get("content") for choice in event.get("choices", [])]
        if any(pieces):
            first = first or time.monotonic() - began
            tokens += 1
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
    if not is_done:
        raise ValueError("a stream without [DONE]")
    return first, tokens


def ask_on(connection: http.client.HTTPConnection, path: str, body: bytes, counts: Counts) -> None:
    began = time.monotonic()
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    if reply.status != 200:
        raise ValueError(f"{reply.status}: {reply.read(500).decode(errors='replace')}")
    if reply.getheader("Content-Type", "").startswith("text/event-stream"):
        first, tokens = read_stream(reply, began)
    else:
        first, tokens = None, json.loads(reply.read())["usage"]["completion_tokens"]
    counts.answered(time.monotonic() - began, first, tokens)


def be_client(number: int, arguments: argparse.Namespace, urls: list[str], until: float, counts: Counts) -> None:
    where = urlsplit(arguments.url)
    connection = http.client.HTTPConnection(where.hostname, where.port or 80, timeout=600)
    path = where.path.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
    while time.monotonic() < until:
        try:
            ask_on(connection, path, body_of(number, arguments, urls), counts)
        except (OSError, ValueError, KeyError, http.client.HTTPException) as problem:
            counts.failed(f"{type(problem).__name__}: {problem}")
            connection.close()
        number += arguments.clients + 1  # whole and streamed in turns
    connection.close()


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} says no VmRSS")


def growth_per_minute(samples: list[tuple[float, float]]) -> float:
    """The slope of the line with the least squares through (seconds, MiB), for a minute."""
    return 60 * statistics.linear_regression(*zip(*samples)).slope


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--picture", type=Path, nargs="*", default=[])
    parser.add_argument("--question", default="Describe the image.", help="{} in it stands for a number that changes")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--pid", type=int)
    arguments = parser.parse_args()
    urls = [data_url(picture) for picture in arguments.picture]
    counts, began = Counts(), time.monotonic()
    clients = [threading.Thread(target=be_client, args=(i, arguments, urls, began + arguments.seconds, counts))
               for i in range(arguments.clients)]
    for client in clients:
        client.start()
    memory: list[tuple[float, float]] = []
    shown = began
    while any(client.is_alive() for client in clients):
        time.sleep(0.5)
        now = time.monotonic() - began
        if arguments.pid and now <= arguments.seconds:
            memory.append((now, resident_mib(arguments.pid)))
        if time.monotonic() - shown >= 10:
            shown = time.monotonic()
            resident = f", {memory[-1][1]:.1f} MiB" if memory else ""
            print(f"{now:.0f} s: {len(counts.seconds)} answers, {len(counts.errors)} errors{resident}", flush=True)
    took = time.monotonic() - began
    print(f"{arguments.clients} clients, {took:.1f} s: {len(counts.seconds)} answers, {len(counts.errors)} errors, "
          f"{len(counts.seconds) / took:.2f} answers/s, {counts.tokens / took:.1f} tokens/s")
    for what, values in (("answer", counts.seconds), ("first piece of a stream", counts.first)):
        if len(values) > 1:
            parts = statistics.quantiles(values, n=20)
            print(f"seconds to the {what}: median {parts[9]:.3f}, 95% {parts[18]:.3f}, longest {max(values):.3f}")
    level = [sample for sample in memory if sample[0] >= 60]
    if len(level) > 2:
        print(f"resident memory: {level[0][1]:.1f} MiB after a minute, {level[-1][1]:.1f} at the end, "
              f"{growth_per_minute(level):+.3f} MiB a minute between")
    for problem in sorted(set(counts.errors))[:5]:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if counts.errors or not counts.seconds else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""A `llava serve` of one's own, on a free port of this machine, and questions to it."""

from __future__ import annotations

import base64
import http.client
import json
import re
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

# A worker that is killed runs no clean-up, and its server would stay with the model in memory. Here the server's shell waits for
# the end of its standard input, which comes however the worker ends.
TIED_TO_INPUT = """
exec 3<&0
"$@" </dev/null &
server=$!
(cat <&3 >/dev/null; kill -9 $server) 2>/dev/null &
watcher=$!
exec 3<&-
wait $server
status=$?
kill $watcher 2>/dev/null
exit $status
"""
ANSWERS_AT = re.compile(r"answers at http://([0-9.]+):(\d+)/")
STARTS = 3  # of a server that is killed while it starts
KILLED = 128  # a shell's exit codes above say by which signal
LONGEST_ANSWER_SECONDS = 660  # a minute beyond llava serve's own --time-limit


class Question(NamedTuple):
    """A question and the bytes of its picture's file."""

    picture: bytes
    text: str


class Reply(NamedTuple):
    """What was said and the tokens of it, or why nothing was."""

    answer: str | None = None
    error: str | None = None
    tokens: int = 0


class ServerLost(Exception):
    """The connection ended without a reply."""


def request_of(question: Question) -> bytes:
    """The body of a chat completion. Which format a picture has its bytes say, whatever the type in its URL."""
    url = "data:image/png;base64," + base64.b64encode(question.picture).decode("ascii")
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question.text}]
    return json.dumps({"messages": [{"role": "user", "content": content}]}).encode()


def reply_of(status: int, body: bytes) -> Reply:
    """What a response of the server says."""
    try:
        said = json.loads(body)
        if status == 200:
            return Reply(answer=said["choices"][0]["message"]["content"], tokens=said["usage"]["completion_tokens"])
        return Reply(error=f"{status}: {said['error']['message']}")
    except (ValueError, KeyError, TypeError) as problem:
        return Reply(error=f"{status}: the response is no chat completion ({problem!r})")


class LlavaServer:
    """Starts with the first question, and again when it has ended. Its questions are asked `at_once` at a time."""

    def __init__(self, command: Sequence[str], at_once: int):
        self.command = [*command, "--host", "127.0.0.1", "--port", "0", "--max-batch", str(at_once)]
        self.at_once = at_once
        self.process: subprocess.Popen | None = None
        self.address = ("", 0)

    def answer_all(self, questions: Sequence[Question]) -> list[Reply]:
        """A reply to each. Those whose server ended are asked again, one by one, so that the one that ends it is found and its
        neighbours are answered."""
        self._start_if_ended()
        with ThreadPoolExecutor(self.at_once) as pool:
            replies = list(pool.map(self._ask_or_none, questions))
        return [reply or self._ask_alone(question) for reply, question in zip(replies, questions)]

    def close(self) -> None:
        """Ends the server and waits for that."""
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process = None

    def _ask_alone(self, question: Question) -> Reply:
        self._start_if_ended()
        return self._ask_or_none(question) or Reply(error="the server ended while it answered this question, twice")

    def _ask_or_none(self, question: Question) -> Reply | None:
        try:
            return self._ask(question)
        except ServerLost:
            return None

    def _ask(self, question: Question) -> Reply:
        connection = http.client.HTTPConnection(*self.address, timeout=LONGEST_ANSWER_SECONDS)
        try:
            connection.request("POST", "/v1/chat/completions", request_of(question), {"Content-Type": "application/json"})
            response = connection.getresponse()
            return reply_of(response.status, response.read())
        except TimeoutError:
            return Reply(error=f"no answer within {LONGEST_ANSWER_SECONDS} s")
        except (OSError, http.client.HTTPException) as problem:
            raise ServerLost from problem
        finally:
            connection.close()

    def _start_if_ended(self) -> None:
        if self.process is not None:
            try:  # a connection may be lost a moment before its process is gone
                self.process.wait(timeout=1 if self._is_silent() else 0)
            except subprocess.TimeoutExpired:
                return
            self.close()
        self._start()

    def _is_silent(self) -> bool:
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status != 200
        except (OSError, http.client.HTTPException):
            return True
        finally:
            connection.close()

    def _start(self) -> None:
        for _ in range(STARTS):
            self.process = subprocess.Popen(["sh", "-c", TIED_TO_INPUT, "llava-server", *self.command], stdin=subprocess.PIPE,
                                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            said = self._read_until_it_listens()
            if said is None:
                return
            status = self.process.wait()
            self.close()
            if status < KILLED:  # what it refuses it refuses again
                break
        raise RuntimeError(f"{' '.join(self.command)} did not start, exit code {status}:\n{said}")

    def _read_until_it_listens(self) -> str | None:
        """Takes its address from what it says; what it said instead if it ended."""
        said = deque(maxlen=20)
        for line in self.process.stderr:
            said.append(line)
            if at := ANSWERS_AT.search(line):
                self.address = (at[1], int(at[2]))
                threading.Thread(target=self._drain, args=(self.process.stderr,), daemon=True).start()
                return None
        return "".join(said)

    @staticmethod
    def _drain(pipe) -> None:
        """Reads what the server says later, so that it never waits for a reader."""
        for _ in pipe:
            pass

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Uses the page of a running `llava serve` as a person does, in headless Chromium over its debugging pipe: chooses a picture,
asks, reads the answers and the tokens over the picture, by mouse, by keyboard and in a narrow window. Exits 1 with a line for
what is not as it should be, and writes a screenshot.

    drive_page.py URL PICTURE QUESTION SCREENSHOT.png
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Browser:
    """Chromium and one tab of it."""

    def __init__(self, program, profile):
        to_browser, self.to = os.pipe()
        self.back, from_browser = os.pipe()

        def take_pipes():  # Chromium reads 3 and writes 4
            read, write = os.dup(to_browser), os.dup(from_browser)
            os.dup2(read, 3)
            os.dup2(write, 4)

        # Nothing from elsewhere is shown, so that the sandbox, which containers lack, is not missed.
        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
             f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=take_pipes, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.unread = b""
        self.number = 0
        self.session = None
        self.complaints = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(domain + ".enable")

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self.read()
            if reply.get("id") == self.number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']}")
                return reply["result"]
            if reply.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(reply["params"]["exceptionDetails"].get("exception", {}).get("description", "an exception"))
            if reply.get("method") == "Log.entryAdded" and reply["params"]["entry"]["level"] == "error":
                self.complaints.append(reply["params"]["entry"]["text"] + " " + reply["params"]["entry"].get("url", ""))

    def read(self):
        while b"\0" not in self.unread:
            block = os.read(self.back, 1 << 16)
            if not block:
                raise RuntimeError("Chromium ended")
            self.unread += block
        message, _, self.unread = self.unread.partition(b"\0")
        return json.loads(message)

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression, what, seconds=120):
        end = time.monotonic() + seconds
        while not self.value(expression):
            if time.monotonic() > end:
                raise RuntimeError(f"waited {seconds} s in vain for {what}: {self.value('document.body.innerText')}")
            time.sleep(0.05)

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def press(self, key, code=None, text=None):
        parameters = {"key": key, "code": code or key}
        codes = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27}
        parameters["windowsVirtualKeyCode"] = codes[key]
        self.call("Input.dispatchKeyEvent", type="keyDown", **parameters, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **parameters)

    def screenshot(self, path):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def end(self):
        self.process.terminate()
        self.process.wait()


def tab_to(page, identity):
    """Walks by Tab until the element has the focus."""
    for _ in range(60):
        if page.value(f"document.activeElement === {identity}"):
            return
        page.press("Tab")
    raise RuntimeError(f"Tab does not lead to {identity}")


def drive(page, arguments):
    problems = []

    def expect(holds, what):
        if not holds:
            problems.append(what)

    page.call("Emulation.setScrollbarsHidden", hidden=True)
    page.resize(1100, 900)
    page.call("Page.navigate", url=arguments.url)
    page.wait("document.readyState === 'complete' && $('about').textContent.includes('positions')", "the model's name", 30)

    document = page.call("DOM.getDocument")["root"]["nodeId"]
    field = page.call("DOM.querySelector", nodeId=document, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=field, files=[str(Path(arguments.picture).resolve())])
    page.wait("document.querySelectorAll('#pictures img').length === 1", "the picture", 10)

    page.value("document.activeElement.blur()")
    tab_to(page, "$('question')")
    page.call("Input.insertText", text=arguments.question)
    for _ in range(2):  # the second time nothing is done for the first time, and the two answers can be compared
        page.press("Enter", text="\r")
        page.wait("asking !== null", "the question to be asked", 10)
        expect(page.value("!$('stop').hidden && $('ask').disabled"), "while an answer comes it can be stopped")
        page.wait("asking === null", "the answers")
    expect(page.value("document.querySelectorAll('[role=alert]').length") == 0, page.value("$('panes').innerText"))
    expect(page.value("[...document.querySelectorAll('section[data-state=complete] h2')].map((h) => h.textContent).join()") ==
           "sparse,dense", "a sparse answer and a dense one beside it")
    for text in page.value("[...document.querySelectorAll('.answer')].map((answer) => answer.textContent)"):
        expect(text.strip(), "an answer is empty")
    for widths in page.value("[...document.querySelectorAll('.bar')].map((bar) => [...bar.children].map((part) => part.offsetWidth))"):
        expect(sum(widths) > 0, "time is drawn by stage")

    # Tokens: the layer by its button, a token by the mouse and by the keyboard.
    canvas = "document.querySelector('canvas')"
    expect(page.value(canvas + ".getAttribute('aria-label')").find(" tokens ") > 0, "the picture says how many tokens it kept")
    dropped = page.value("(() => { const c = document.querySelector('canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, "
                         "c.height).data; document.querySelector('.layers input').click(); const e = c.getContext('2d').getImageData(0, 0, "
                         "c.width, c.height).data; return d.some((x, i) => x !== e[i]); })()")
    expect(dropped, "dropped tokens look otherwise than kept ones")
    page.value("[...document.querySelectorAll('section:first-child .layers input')].at(-1).click()")
    page.value(canvas + ".scrollIntoView()")
    box = page.value(f"(() => {{ const b = {canvas}.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; }})()")
    note = "document.querySelector('.shown + .note').textContent"
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + 0.5 * box[2], y=box[1] + 0.5 * box[3])
    told = page.value(note)
    expect("Row " in told and ", score " in told and ", rank " in told, "the mouse tells of a token: " + told)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    expect("Row " not in page.value(note), "the mouse leaves the token")
    page.value("scrollTo(0, 0)")
    tab_to(page, canvas)
    page.press("ArrowRight")
    page.press("ArrowDown")
    expect("Row 2, column 1" in page.value(note), "arrow keys walk over the tokens: " + page.value(note))
    page.press("Escape")
    page.value("document.activeElement.blur()")
    page.screenshot(arguments.screenshot)

    page.resize(340, 700)
    expect(page.value("document.documentElement.scrollWidth <= innerWidth"), "a narrow window needs no scrolling to the side")
    return problems + page.complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("url", "picture", "question", "screenshot"):
        parser.add_argument(name)
    parser.add_argument("--chromium", default="chromium")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        page = Browser(arguments.chromium, profile)
        try:
            problems = drive(page, arguments)
        except RuntimeError as problem:
            problems = [str(problem)] + page.complaints
        finally:
            page.end()
    for problem in problems:
        print(f"page: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Opens a page in a real Chromium, by its debugging protocol, and says what happened there.

The argument is JSON: chromium, url, width, height, dark, steps. A step is {"wait": expression}, until it is true;
{"do": expression}; {"key": name}, pressed and let go; {"read": expression}, whose values are returned;
{"shot": file}; {"kill": process id}, of a process that the test has started. Printed is JSON: values, requests (URLs), errors (console, exceptions, log), responses (URL and status).
"""

import base64
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from websockets.sync.client import connect

KEYS = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39}
DEADLINE = 60


class Browser:
    def __init__(self, task, folder):
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        flags += " --disable-component-update --disable-sync --remote-debugging-port=0 --hide-scrollbars about:blank"
        command = [task["chromium"], *flags.split(), f"--user-data-dir={folder}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.said = {"values": [], "requests": [], "errors": [], "responses": []}
        self.number = 0
        port = pathlib.Path(folder, "DevToolsActivePort")
        until(lambda: port.exists() and len(port.read_text().splitlines()) == 2)
        number, path = port.read_text().splitlines()
        self.socket = connect(f"ws://127.0.0.1:{number}{path}", max_size=None, proxy=None)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = None
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if getattr(self, "session", None):
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv(timeout=DEADLINE))
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.note(answer)

    def note(self, event):
        about = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.said["requests"].append(about["request"]["url"])
            case "Network.responseReceived":
                self.said["responses"].append([about["response"]["url"], about["response"]["status"]])
            case "Runtime.exceptionThrown":
                self.said["errors"].append(json.dumps(about["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                self.said["errors"].append(json.dumps(about["args"]))
            case "Log.entryAdded" if about["entry"]["level"] in ("error", "warning"):
                self.said["errors"].append(f"{about['entry']['text']} {about['entry'].get('url', '')}")

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def step(self, step):
        if "wait" in step:
            until(lambda: self.evaluate(step["wait"]), f"{step['wait']}; the page says: ", self)
        if "do" in step:
            self.evaluate(step["do"])
        if "read" in step:
            self.said["values"].append(self.evaluate(step["read"]))
        if "key" in step:
            key = {"key": step["key"], "code": step["key"], "windowsVirtualKeyCode": KEYS[step["key"]]}
            if step["key"] == "Enter":
                key["text"] = "\r"
            self.call("Input.dispatchKeyEvent", type="keyDown", **key)
            self.call("Input.dispatchKeyEvent", type="keyUp", **key)
        if "kill" in step:
            os.kill(step["kill"], signal.SIGKILL)
        if "shot" in step:
            shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=step.get("whole", False))
            pathlib.Path(step["shot"]).write_bytes(base64.b64decode(shot["data"]))


def until(condition, what="", browser=None):
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            text = browser.evaluate("document.body.innerText") if browser else ""
            raise TimeoutError(what + str(text) + (json.dumps(browser.said) if browser else ""))
        time.sleep(0.05)


def main():
    task = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(task, folder)
        try:
            for domain in ("Network", "Runtime", "Log", "Page"):
                browser.call(f"{domain}.enable")
            width, height = task.get("width", 1400), task.get("height", 900)
            metrics = {"width": width, "height": height, "deviceScaleFactor": task.get("scale", 1), "mobile": width < 600}
            browser.call("Emulation.setDeviceMetricsOverride", **metrics)
            features = [{"name": "prefers-color-scheme", "value": "dark" if task.get("dark") else "light"}]
            features.append({"name": "prefers-reduced-motion", "value": "reduce"})
            browser.call("Emulation.setEmulatedMedia", features=features)
            browser.call("Page.navigate", url=task["url"])
            for step in task["steps"]:
                browser.step(step)
            print(json.dumps(browser.said))
        finally:
            browser.process.kill()
            browser.process.wait()


main()

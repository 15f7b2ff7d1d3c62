"""A program that takes an order a line and answers each with a line of JSON: `device_check`, and `pytorch_training_speed.py`."""

import json
import pathlib
import queue
import subprocess
import threading
import time


class Budget:
    """What is left of the time for everything."""

    def __init__(self, seconds):
        self.started = time.monotonic()
        self.seconds = seconds

    def spent(self):
        return time.monotonic() - self.started

    def left(self):
        return self.seconds - self.spent()


class Program:
    """Starts the program at the first order, and again at the next one if it has ended or was ended.

    A GPU's driver may hang or end the process: every answer has a limit, and what went wrong is an answer, `{"error": ...}`.
    """

    def __init__(self, command, environment, log, budget, greets=False):
        """`log` is the file that gets what the program says beside its answers. If it `greets`, its first line is no answer."""
        self.command = [str(word) for word in command]
        self.environment = environment
        self.log = pathlib.Path(log)
        self.budget = budget
        self.greets = greets
        self.greeting = None
        self.process = None

    def ask(self, order, limit=120):
        """The answer, waited for at most `limit` seconds."""
        limit = min(limit, self.budget.left())
        if limit <= 0:
            return {"error": "not run: the time is up"}
        end = time.monotonic() + limit
        try:
            if self.process is None or self.process.poll() is not None:
                self.start()
                if self.greets:
                    self.greeting = self.lines.get(timeout=limit)
            self.process.stdin.write(order + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            self.close()
            return {"error": f"no answer to {order!r} within {limit:.0f} s: the program was ended"}
        except OSError as error:
            self.close()
            return {"error": f"{self.command[0]}: {error}{self.last_words()}"}
        if line is None:
            code = self.process.wait()
            return {"error": f"the program ended at {order!r} with exit code {code}{self.last_words()}"}
        try:
            answer = json.loads(line)
        except ValueError:
            return {"error": f"{line!r} is no answer to {order!r}"}
        return answer if isinstance(answer, dict) else {"error": f"{answer!r} is no answer to {order!r}"}

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.lines = queue.Queue()
        threading.Thread(target=forward, args=(self.process.stdout, self.lines), daemon=True).start()

    def last_words(self):
        """The last line of the log, for a message."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return f": {lines[-1][:300]}" if lines else ""

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def forward(stream, lines):
    """Lets `Program.ask` wait for a line with a limit. None is the stream's end."""
    for line in stream:
        lines.put(line.strip())
    lines.put(None)

# SPDX-License-Identifier: Apache-2.0
"""Phalanx's side of the benchmarks: the engine by phalanx-bench, the whole by `phalanx up`."""
import contextlib
import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import time
import urllib.parse
from pathlib import Path

PRESETS = ("llama-3.2-1b", "gpt-oss-small")
USAGE = 2  # the exit status for an option that this build does not know


class Failed(Exception):
    """A program measured did not do its work."""


class NotInThisBuild(Exception):
    """The row needs an option that the programs measured do not have."""


def said(command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode == USAGE:
        raise NotInThisBuild(done.stderr.strip().splitlines()[0] if done.stderr.strip() else "usage")
    if done.returncode != 0:
        raise Failed(f"{shlex.join(map(str, command))}: status {done.returncode}\n{done.stderr[-800:]}")
    return done.stdout


class Phalanx:
    name = "phalanx"

    def __init__(self, folder, models, threads):
        self.folder, self.models, self.threads = Path(folder), Path(models), threads
        self.help = said([self.folder / "phalanx-bench", "engine", "--help"])
        self.state = self.models / "state"

    def knows(self, option, value=None):
        """Whether the engine takes the option, and the value where its help lists them."""
        found = re.search(rf"{re.escape(option)}(?:[=\s]+(\S+))?", self.help)
        listed = found.group(1) if found and found.group(1) and "|" in found.group(1) else None
        return found is not None and (value is None or listed is None or value in re.split(r"[|,]", listed))

    def require(self, options):
        """Raises NotInThisBuild for the first (option, value) that is not there."""
        for option, value in options:
            if not self.knows(option, value):
                raise NotInThisBuild(f"{option} {value}")

    def known(self, options):
        """The command line of those options that this build has, and the others."""
        here = [pair for pair in options if self.knows(*pair)]
        return [word for pair in here for word in pair], [" ".join(p) for p in options if p not in here]

    def make_model(self, preset, say):
        target = self.models / preset
        if not (target / "config.json").exists():
            say(f"making {target}")
            said([self.folder / "phalanx-model", "synth", "--preset", preset, target])
        return target

    def ceiling(self):
        return json.loads(said([self.folder / "phalanx-bench", "ceiling", "--threads", self.threads, "--json"]))

    def engine(self, model, arguments, threads=None):
        """(facts, command) of phalanx-bench engine; ceilings are measured apart."""
        command = [self.folder / "phalanx-bench", "engine", self.models / model, "--threads",
                   str(threads or self.threads), *map(str, arguments), "--no-ceiling", "--json"]
        return json.loads(said(command)), shorten(command)

    def first(self, model, arguments):
        """Seconds from the start of the process to the line that tells of the first token."""
        command = [self.folder / "phalanx-bench", "first", self.models / model, "--threads", str(self.threads),
                   *map(str, arguments), "--json"]
        began = time.monotonic()
        facts = json.loads(said(command))
        return time.monotonic() - began, facts, shorten(command)

    def serve_first(self, model, arguments):
        """Seconds from `phalanx up` to the first token over HTTP, and to its readiness; its keys exist before."""
        if not (self.state / model).exists():
            with self.served(model, arguments):
                pass
        with self.served(model, arguments) as (ready, began, ready_seconds, command):
            ask_one_token(ready)
            return time.monotonic() - began, {"ready_seconds": ready_seconds}, shorten(command)

    def serve_load(self, model, arguments, load):
        """What the clients of `phalanx bench http` see of `phalanx up`."""
        with self.served(model, arguments) as (ready, _, _, command):
            ask_one_token(ready)
            return self.load(ready["url"], ["--key-file", ready["key_file"], *load]), shorten(command)

    def load(self, url, arguments):
        facts = json.loads(said([self.folder / "phalanx", "bench", "http", url, *arguments, "--json"]))
        if facts["errors"] > 0:
            raise Failed(f"{facts['errors']} of {facts['sent']} requests failed: {facts.get('first_error')}")
        return facts

    @contextlib.contextmanager
    def served(self, model, arguments):
        """A daemon of that model: (its ready line, when it was started, seconds until it was ready, its command)."""
        data = self.state / model
        data.mkdir(parents=True, exist_ok=True)
        command = [self.folder / "phalanx", "up", self.models / model, "--tp", "1", "--pp", "1", "--threads",
                   str(self.threads), "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--data", data,
                   *map(str, arguments), "--json"]
        log = self.state / f"{model}.log"
        began = time.monotonic()
        with open(log, "wb") as err:
            process = subprocess.Popen([str(w) for w in command], stdout=subprocess.PIPE, stderr=err)
        try:
            line = process.stdout.readline()
            if not line:
                raise Failed(f"phalanx up ended: {log.read_text(errors='replace')[-800:]}")
            yield json.loads(line), began, time.monotonic() - began, command
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def ask_one_token(ready):
    body = {"model": ready["model"], "max_tokens": 1, "temperature": 0, "prompt": "first token, please"}
    key = Path(ready["key_file"]).read_text().strip()
    connection = http.client.HTTPConnection(urllib.parse.urlparse(ready["url"]).netloc, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(body),
                       {"Authorization": "Bearer " + key, "Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 200:
        raise Failed(f"one token was asked for, the answer was {answer.status}: {text[:300]}")


def shorten(command):
    """A command as the documents show it: programs and models by their last name."""
    words = [str(word) for word in command]
    return shlex.join([os.path.basename(w) if w.startswith("/") else w for w in words])

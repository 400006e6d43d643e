# SPDX-License-Identifier: Apache-2.0
"""llama.cpp's own tools, from a folder that holds a build of them, on models in GGUF."""
import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

from ours import Failed, said, shorten

FILES = {"bf16": "llama1b-bf16.gguf", "q8_0": "llama1b-q8_0.gguf", "mxfp4": "gptoss-12l-mxfp4.gguf"}


class LlamaCpp:
    name = "llama.cpp"

    def __init__(self, folder, gguf, threads):
        self.folder, self.gguf, self.threads = Path(folder), Path(gguf), threads

    def version(self):
        done = subprocess.run([self.folder / "llama-bench", "--version"], capture_output=True, text=True)
        found = re.search(r"version:\s*(.+)", done.stdout + done.stderr)
        return "llama.cpp " + found.group(1) if found else "llama.cpp"

    def has(self, kind, tool):
        return (self.gguf / FILES[kind]).exists() and (self.folder / tool).exists()

    def size(self, kind):
        return (self.gguf / FILES[kind]).stat().st_size

    def bench(self, kind, prompt, gen, reps):
        """(tokens per second of each repetition, command) of llama-bench."""
        command = [self.folder / "llama-bench", "-m", self.gguf / FILES[kind], "-t", str(self.threads), "-p",
                   str(prompt), "-n", str(gen), "-r", str(reps), "-o", "json"]
        rows = json.loads(said(command))
        return rows[0]["samples_ts"], shorten(command)

    def batched(self, kind, prompt, gen, n_seqs):
        """(decode tokens per second of all sequences, command) of llama-batched-bench."""
        command = [self.folder / "llama-batched-bench", "-m", self.gguf / FILES[kind], "-t", str(self.threads),
                   "-tb", str(self.threads), "-c", str((prompt + gen) * n_seqs), "-b", "2048", "-ub", "512",
                   "-npp", str(prompt), "-ntg", str(gen), "-npl", str(n_seqs), "--output-format", "jsonl"]
        text = said(command)
        rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        if not rows:
            raise Failed(f"{shorten(command)} printed no result: {text[-300:]}")
        return [rows[-1]["speed_tg"]], shorten(command)

    def memory(self, kind, prompt, gen):
        """(bytes of llama-bench at its largest beyond the model file, command); its cache is inside."""
        command = [self.folder / "llama-bench", "-m", self.gguf / FILES[kind], "-t", str(self.threads), "-p",
                   str(prompt), "-n", str(gen), "-r", "1", "-o", "json"]
        process = subprocess.Popen([str(w) for w in command], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise Failed(f"{shorten(command)}: status {process.returncode}")
        return usage.ru_maxrss * 1024 - self.size(kind), shorten(command)

    def serve_first(self, kind):
        """Seconds from the start of llama-server to its first token over HTTP, and to its health."""
        with self.served(kind) as (port, began, ready_seconds, command):
            ask_one_token(port)
            return time.monotonic() - began, {"ready_seconds": ready_seconds}, shorten(command)

    def serve_load(self, kind, load):
        """What the same clients see of llama-server; load: a function of its URL."""
        with self.served(kind) as (port, _, _, command):
            ask_one_token(port)
            return load(f"http://127.0.0.1:{port}"), shorten(command)

    @contextlib.contextmanager
    def served(self, kind):
        """A llama-server with 8 slots: (its port, when it was started, seconds until it was healthy, its command)."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [self.folder / "llama-server", "-m", self.gguf / FILES[kind], "-t", str(self.threads), "-np",
                   "8", "-c", "4096", "--host", "127.0.0.1", "--port", str(port)]
        began = time.monotonic()
        process = subprocess.Popen([str(w) for w in command], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            while not ask(port, "GET", "/health", None):
                if process.poll() is not None or time.monotonic() - began > 120:
                    raise Failed(f"{shorten(command)} did not become ready")
                time.sleep(0.01)
            yield port, began, time.monotonic() - began, command[:-2]
        finally:
            process.terminate()
            process.wait(60)


def ask_one_token(port):
    body = {"prompt": list(range(100, 116)), "n_predict": 1, "cache_prompt": False}
    if not ask(port, "POST", "/completion", json.dumps(body)):
        raise Failed("llama-server gave no token")


def ask(port, method, path, body):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status == 200
    except OSError:
        return False

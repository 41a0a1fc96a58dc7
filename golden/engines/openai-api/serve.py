"""vLLM's server, of one checkpoint at a time: what make engine ENGINE=openai-api tries dump.py on."""

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

SETTINGS = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
SECONDS = 900  # to load a checkpoint of some MB, on a machine that has much to do
RUNNING = []


def stop():
    """With the processes that the server has started; one that does not end when asked to is made to."""
    while RUNNING:
        server = RUNNING.pop()
        for number in signal.SIGTERM, signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(30)
                break


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(url):
    try:
        with urllib.request.urlopen(url + "/models", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def start(checkpoint, dtype, best):
    """Ends the one before; returns this one's URL once it answers. RuntimeError with the last line that it said where it does not."""
    stop()
    port, log = free_port(), tempfile.TemporaryFile("w+")
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", checkpoint, "--dtype", dtype, "--host", "127.0.0.1", "--port", str(port),
               "--max-model-len", "128", "--max-num-seqs", "1", "--max-logprobs", str(best), "--enforce-eager",
               "--hf-overrides", json.dumps({"architectures": ["Gemma4ForCausalLM"]})]
    server = subprocess.Popen(command, env={**os.environ, **SETTINGS}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    RUNNING.append(server)
    url, end = f"http://127.0.0.1:{port}/v1", time.monotonic() + SECONDS
    while not answers(url):
        if server.poll() is not None or time.monotonic() > end:
            stop()
            log.seek(0)
            said = log.read().strip().splitlines() or ["nothing"]
            raise RuntimeError(f"vLLM's server of {os.path.basename(checkpoint)} does not answer: {said[-1]}")
        time.sleep(1)
    return url


atexit.register(stop)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with what is registered

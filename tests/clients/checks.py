"""What every client's checks share: where the servers are, and how to say that a call must fail."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import traceback
import urllib.request

URL = os.environ["LORAD_URL"]
GUARDED = os.environ["LORAD_GUARDED_URL"]
# Servers of models that read: one with labels, one that embeds. Both are called `bert`.
CLASSIFIER = os.environ["LORAD_CLASSIFIER_URL"]
EMBEDDER = os.environ["LORAD_EMBEDDER_URL"]
READER = "query-value"
NEWS = ["The old bridge was closed.", "Rain."]
BASE, ADAPTER, OTHER = "llama", "layers", "dora"
API_KEY, ADMIN_KEY = "a-client", "an-operator"
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden/llama")


def raises(kind, call, *mentions):
    """The error that `call` raises: a `kind` whose text has all of `mentions`."""
    try:
        result = call()
    except kind as error:
        assert all(word in str(error) for word in mentions), f"{mentions} not in: {error}"
        return error
    raise AssertionError(f"{kind.__name__} was not raised, but returned {result!r}")


def gauge(name):
    """A metric of the open server, summed over its labels."""
    with urllib.request.urlopen(f"{URL}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))


def eventually(holds, seconds=5):
    """Waits until `holds()`, which says what it saw when it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"it never came to be: {holds.__name__}"
        time.sleep(0.02)


def nothing_runs():
    return gauge("vllm:num_requests_running") + gauge("vllm:num_requests_waiting") == 0


def publish(name, golden, alpha, policy="pin", url=URL, key=ADMIN_KEY):
    """Uploads a golden adapter under `name`, its effect scaled by `alpha`: other content, another version."""
    config = json.load(open(f"{GOLDEN}/adapters/{golden}/adapter_config.json"))
    config["lora_alpha"] = alpha
    weights = open(f"{GOLDEN}/adapters/{golden}/adapter_model.safetensors", "rb").read()
    bound = b"a-boundary-that-is-in-no-adapter"
    parts = [(b"config", json.dumps(config).encode()), (b"weights", weights)]
    body = b"".join(
        b"--" + bound + b'\r\ncontent-disposition: form-data; name="' + part + b'"; filename="f"\r\n\r\n' + data + b"\r\n"
        for part, data in parts
    )
    head = {"content-type": f"multipart/form-data; boundary={bound.decode()}", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(
        f"{url}/admin/adapters/{name}?policy={policy}", body + b"--" + bound + b"--\r\n", head, method="PUT"
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@contextlib.contextmanager
def another_server(*flags):
    """A server of one check's own: its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [os.environ["LORAD_BINARY"], "serve", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    line += ["--model", os.environ["LORAD_BASE"], "--kv-cache-bytes", "16MiB", *flags]
    process = subprocess.Popen(line)
    url = f"http://127.0.0.1:{port}"

    def ready():
        try:
            return urllib.request.urlopen(f"{url}/health").status == 200
        except OSError:
            return False

    try:
        eventually(ready, seconds=20)
        yield url, process
    finally:
        process.kill()
        process.wait()


def near(one, other, tolerance=1e-5):
    """Whether two lists of numbers are the same but for rounding."""
    return len(one) == len(other) and all(abs(a - b) <= tolerance for a, b in zip(one, other))


def run(*checks):
    """Makes every check, and fails in the end when one has."""
    failed = 0
    for check in checks:
        began = time.monotonic()
        try:
            check()
            outcome = "ok"
        except Exception:
            traceback.print_exc()
            outcome = "FAILED"
            failed += 1
        print(f"  {check.__name__}: {outcome} ({time.monotonic() - began:.1f} s)", flush=True)
    sys.exit(failed > 0)

"""What it costs that adapters are many: cold ones against warm ones, what others notice of a load, and bytes in a slot.

usage: registry.py URL BASE PREFIX COUNT

The server has adapters PREFIX0 … of one size, more than its slots and its memory hold (--adapter-slots 4, and
--adapter-memory-bytes of four adapters), their files in the page cache.
"""

import json
import random
import statistics
import sys
import threading
import time
import urllib.request

PROMPT, FIRST_TOKEN, LAST_TOKEN, STREAMS = 128, 100, 40_000, 8
tokens = random.Random(0)


def send(url, model, max_tokens, stream=True):
    prompt = [tokens.randrange(FIRST_TOKEN, LAST_TOKEN) for _ in range(PROMPT)]
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "stream": stream}
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    return urllib.request.urlopen(request)


def first_token(url, model):
    start = time.perf_counter()
    with send(url, model, 1) as answer:
        answer.readline()
        return 1e3 * (time.perf_counter() - start)


def gaps(url, base, seconds, found):
    """Milliseconds between the tokens of one stream."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        with send(url, base, 512) as answer:
            last = None
            for line in answer:
                now = time.perf_counter()
                if line.startswith(b"data: {"):
                    if last is not None:
                        found.append(1e3 * (now - last))
                    last = now
                if now > end:
                    return


def streams(url, base, seconds, beside):
    found = [[] for _ in range(STREAMS)]
    threads = [threading.Thread(target=gaps, args=(url, base, seconds, one)) for one in found]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    beside(time.perf_counter() + seconds - 1)
    for thread in threads:
        thread.join()
    # The first half second is prompts.
    every = sorted(gap for one in found for gap in one[8:])
    return every[len(every) // 2], every[int(0.99 * len(every))], every[-1]


def main():
    url, base, prefix, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    names = [f"{prefix}{number}" for number in range(count)]
    # More names than fit pass between two turns of one, so that each is read anew.
    cold, warm = [], []
    for _ in range(3):
        for name in names:
            cold.append(first_token(url, name))
            warm.append(first_token(url, name))
    low, high = statistics.median(warm), statistics.median(cold)
    print(f"first token, {PROMPT}-token prompt: warm {low:.1f} ms, cold {high:.1f} ms, ratio {high / low:.2f} (medians of {len(cold)})")

    turn = iter(range(10**9))

    def others(first):
        """One-token requests, eight a second, to names that are there, or to names that are not."""
        def ask(end):
            while time.perf_counter() < end:
                first_token(url, names[0] if first else names[next(turn) % count])
                time.sleep(0.125)
        return ask

    first_token(url, names[0])
    for what, beside in [("warm", others(True)), ("cold", others(False))]:
        middle, high, worst = streams(url, base, 12, beside)
        print(f"gaps in {STREAMS} streams of the base, beside {what} one-token requests: median {middle:.1f}, 99 % {high:.1f}, worst {worst:.1f} ms")

    entries = json.load(urllib.request.urlopen(f"{url}/admin/adapters?limit=1000"))["adapters"]
    scrape = urllib.request.urlopen(f"{url}/metrics").read().decode()
    figures = {line.split()[0]: line.split()[1] for line in scrape.splitlines() if not line.startswith("#")}
    for name, value in sorted(figures.items()):
        if "adapter" in name and ("bytes" in name or "slots" in name or "loads" in name or "resident" in name):
            print(name, value)
    print("parameters of one adapter:", sorted({entry["parameters"] for entry in entries}))


main()

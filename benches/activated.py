"""Time to the first token over a context that the base has answered: activated adapters against plain ones.

usage: activated.py URL BASE ACTIVATED[,…] PLAIN[,…] INVOCATION_TOKEN[,…]

Each round is a fresh context of random tokens: the base answers it first, then every adapter. The server keeps its prefix
cache; the adapters must be published.
"""

import json
import random
import statistics
import sys
import time
import urllib.request

ROUNDS, CONTEXT, QUESTION, FIRST_TOKEN, LAST_TOKEN = 5, 1500, 8, 100, 40_000


def ask(url, model, prompt):
    body = json.dumps({"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"content-type": "application/json"})
    start = time.perf_counter()
    answer = json.load(urllib.request.urlopen(request))
    took = 1e3 * (time.perf_counter() - start)
    return took, answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def main():
    url, base, activated, plain, invocation = sys.argv[1:]
    kinds = {"base": [base], "activated": activated.split(","), "plain": plain.split(",")}
    invocation = [int(token) for token in invocation.split(",")]
    tokens = random.Random(0)
    draw = lambda count: [tokens.randrange(FIRST_TOKEN, LAST_TOKEN) for _ in range(count)]
    seen = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        prompt = draw(CONTEXT) + invocation + draw(QUESTION)
        for kind, models in kinds.items():
            seen[kind] += [ask(url, model, prompt) for model in models]
    for kind, answers in seen.items():
        median = statistics.median(took for took, _ in answers)
        cached = sorted({cached for _, cached in answers})
        print(f"{kind}: {median:.0f} ms (median of {len(answers)}), cached tokens {cached}")


main()

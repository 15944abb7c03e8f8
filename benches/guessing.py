"""What guessing ahead brings where answers repeat their questions: JSON out of sentences, SQL over named tables.

usage: guessing.py PLAIN_URL GUESSING_URL JSON_MODEL SQL_MODEL [CLIENTS] [PAIRS]

Two servers of one base with the same adapters, one started with `--draft-tokens N`. Each pair asks both the same questions,
one after the other; answers are greedy and must be the same. Prints tokens a second and the ratio of each pair.
"""

import concurrent.futures
import json
import random
import statistics
import sys
import time
import urllib.request

QUESTIONS = 16
PEOPLE = ["Sofia Rossi", "Chen Miller", "Elena Petrov", "David Farouk", "Amara Okafor", "Jonas Lindqvist"]
PLACES = ["Paris", "Boston", "Seoul", "Madrid", "Cairo", "Oslo"]
MONTHS = ["January", "March", "May", "July", "October", "December"]
TABLES = [
    ("students", ["name", "grade", "school"]),
    ("products", ["name", "price", "color"]),
    ("employees", ["name", "salary", "department"]),
]


def sentence(draw):
    person, place, month = draw.choice(PEOPLE), draw.choice(PLACES), draw.choice(MONTHS)
    date = f"{draw.randrange(1, 29)} {month} {draw.randrange(1900, 2025)}"
    return f"Extract JSON: {person} left {place} on {date} to see the world."


def query(draw):
    table, columns = draw.choice(TABLES)
    one, other = draw.sample(columns, 2)
    return f"Table {table}(id, {', '.join(columns)}). What is the highest {one} of {table} by {other}?"


def ask(url, model, question):
    message = {"role": "user", "content": question}
    body = {"model": model, "messages": [message], "max_tokens": 64, "temperature": 0}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    answer = json.load(urllib.request.urlopen(request))
    return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]


def run(url, model, questions, clients):
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda question: ask(url, model, question), questions))
    tokens = sum(tokens for _, tokens in answers)
    return tokens / (time.perf_counter() - start), [text for text, _ in answers]


def main():
    plain, guessing, json_model, sql_model, *rest = sys.argv[1:]
    clients, pairs = [int(word) for word in rest] + [1, 5][len(rest) :]
    for model, make in [(json_model, sentence), (sql_model, query)]:
        draw, rates, ratios = random.Random(0), [], []
        run(guessing, model, [make(draw)], 1), run(plain, model, [make(draw)], 1)
        for _ in range(pairs):
            questions = [make(draw) for _ in range(QUESTIONS)]
            (guessed, same), (alone, answers) = (run(url, model, questions, clients) for url in (guessing, plain))
            assert same == answers, "guessing changed an answer"
            rates.append((alone, guessed))
            ratios.append(guessed / alone)
        alone, guessed = (statistics.median(rate) for rate in zip(*rates))
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{model}, {clients} at once: {alone:.0f} tokens/s, guessing {guessed:.0f}; {spread}; {answers[0]!r}")


main()

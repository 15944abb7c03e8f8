#!/usr/bin/env python3
"""A closed loop of streaming completions against a running server, and random adapters to name in it.

    serve.py adapters OUT COUNT RANK --model DIR     PEFT adapters OUT/a0, a1, … on all linear layers of a Llama
    serve.py load --models base,a0,a1 -c 16 -n 48    16 clients, 48 requests, each naming the next model

Nothing but the standard library. Prompts are random token ids of exact length without a common beginning, so no prefix cache
helps; answers run to their full length. Tokens are those that the server counts in its usage.
"""
import argparse
import http.client
import json
import pathlib
import random
import statistics
import struct
import threading
import time
from urllib.parse import urlsplit

PROJECTIONS = {
    "self_attn.q_proj": ("hidden", "queries"), "self_attn.k_proj": ("hidden", "keys"),
    "self_attn.v_proj": ("hidden", "keys"), "self_attn.o_proj": ("queries", "hidden"),
    "mlp.gate_proj": ("hidden", "inner"), "mlp.up_proj": ("hidden", "inner"), "mlp.down_proj": ("inner", "hidden"),
}


def sizes(model):
    config = json.loads((pathlib.Path(model) / "config.json").read_text())
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    return config["num_hidden_layers"], {
        "hidden": config["hidden_size"], "inner": config["intermediate_size"], "queries": heads * head,
        "keys": config.get("num_key_value_heads", heads) * head,
    }


def write_adapter(directory, rank, layers, dims, rng):
    header, data = {}, bytearray()
    for layer in range(layers):
        for module, (inward, outward) in PROJECTIONS.items():
            for factor, shape in (("A", [rank, dims[inward]]), ("B", [dims[outward], rank])):
                count = shape[0] * shape[1]
                width = 1 / dims[inward] ** 0.5 if factor == "A" else 0.01
                start = len(data)
                data += struct.pack(f"<{count}f", *(rng.uniform(-width, width) for _ in range(count)))
                name = f"base_model.model.model.layers.{layer}.{module}.lora_{factor}.weight"
                header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, len(data)]}
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    weights = struct.pack("<Q", len(text)) + text + bytes(data)
    (directory / "adapter_model.safetensors").write_bytes(weights)
    targets = [module.split(".")[1] for module in PROJECTIONS]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "target_modules": targets}
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=1))


def adapters(args):
    layers, dims = sizes(args.model)
    for index in range(args.count):
        write_adapter(pathlib.Path(args.out) / f"a{index}", args.rank, layers, dims, random.Random(index))


class Load:
    """Clients that take the next request from one counter until none is left."""

    def __init__(self, args):
        self.args, self.models = args, args.models.split(",")
        self.next, self.lock = 0, threading.Lock()
        self.tokens, self.first, self.errors = 0, [], 0

    def take(self):
        with self.lock:
            self.next += 1
            return self.next - 1 if self.next <= self.args.requests else None

    def client(self):
        url = urlsplit(self.args.url)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=600)
        while (index := self.take()) is not None:
            rng = random.Random(self.args.seed * 1_000_003 + index)
            body = {
                "model": self.models[index % len(self.models)], "temperature": 0, "ignore_eos": True, "stream": True,
                "max_tokens": self.args.output, "stream_options": {"include_usage": True},
                "prompt": [rng.randrange(self.args.vocab) for _ in range(self.args.input)],
            }
            begun = time.perf_counter()
            connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
            self.read(connection.getresponse(), begun)

    def read(self, answer, begun):
        first, tokens = None, 0
        for line in answer:
            if line.startswith(b"data: {"):
                first = first or time.perf_counter() - begun
                usage = json.loads(line[6:]).get("usage")
                tokens = usage["completion_tokens"] if usage else tokens
        with self.lock:
            self.tokens += tokens
            self.errors += tokens == 0
            self.first.append(first or 0.0)

    def run(self):
        clients = [threading.Thread(target=self.client) for _ in range(self.args.clients)]
        begun = time.perf_counter()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        seconds = time.perf_counter() - begun
        first = 1000 * statistics.median(self.first)
        print(f"{self.args.models}: {self.args.clients} clients, {self.args.requests} requests, "
              f"{self.tokens / seconds:.1f} tokens/s out, first token {first:.0f} ms (median), {self.errors} errors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("adapters")
    make.add_argument("out")
    make.add_argument("count", type=int)
    make.add_argument("rank", type=int)
    make.add_argument("--model", required=True)
    make.set_defaults(run=adapters)
    load = commands.add_parser("load")
    load.add_argument("--url", default="http://127.0.0.1:8000")
    load.add_argument("--models", required=True)
    load.add_argument("-c", "--clients", type=int, default=1)
    load.add_argument("-n", "--requests", type=int, default=8)
    load.add_argument("--input", type=int, default=128)
    load.add_argument("--output", type=int, default=64)
    load.add_argument("--vocab", type=int, default=40_000)
    load.add_argument("--seed", type=int, default=0)
    load.set_defaults(run=lambda args: Load(args).run())
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()

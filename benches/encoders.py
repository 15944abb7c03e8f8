"""Texts a second of transformers + PEFT, to hold `lorad bench load --endpoint classify` against; and what both need.

usage: encoders.py texts FILE [N]               N texts of 4 to 30 common words, one a line (256)
       encoders.py adapters DIR N BASE          N random SEQ_CLS adapters d0, d1, … of rank 8 on query and value, 3 labels
       encoders.py run FILE BASE DIR [DTYPE]    texts a second of the base and of the adapters in DIR, on this machine
       encoders.py beside FILE BASE DIR URL [DTYPE]   the same adapters by turns: the fastest way here, and lorad at URL

The ways to serve several adapters: `one by one`, each text alone with its adapter switched to; `grouped`, a padded batch for each
adapter in turn; `mixed`, one padded batch with PEFT's `adapter_names`. Each figure is the best of three rounds of some seconds.
"""

import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

WORDS = ("the of and to in a is that for it was on are as with his they at be this from have or by one had not but what all were "
         "when we there can an your which their said if do will each about how up out them then she many some so these would "
         "other into has more her two like him see time could no make than first been its who now people my made over did down "
         "only way find use may water long little very after words called just where most know").split()
ROUNDS, SECONDS, PAIRS = 3, 3.0, 5


def texts(path, count=256):
    draws = random.Random(0)
    lines = [" ".join(draws.choices(WORDS, k=draws.randint(4, 30))) for _ in range(int(count))]
    Path(path).write_text("\n".join(lines) + "\n")


def adapters(folder, count, base):
    for i in range(int(count)):
        torch.manual_seed(i)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
        tuned = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"]))
        with torch.no_grad():
            for key, p in tuned.named_parameters():
                if "lora_" in key:
                    p.normal_(std=0.05)
        tuned.save_pretrained(Path(folder) / f"d{i}")


class Bench:
    def __init__(self, path, base, folder, dtype="float32"):
        self.texts = Path(path).read_text().splitlines()
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        load = lambda: AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, dtype=getattr(torch, dtype)).eval()
        self.plain, self.names = load(), sorted(p.name for p in Path(folder).iterdir() if (p / "adapter_config.json").is_file())
        first, *rest = self.names
        self.tuned = PeftModel.from_pretrained(load(), Path(folder) / first, adapter_name=first).eval()
        for name in rest:
            self.tuned.load_adapter(Path(folder) / name, adapter_name=name)

    def read(self, model, batch, **how):
        return model(**self.tokenizer(batch, padding=True, return_tensors="pt"), **how).logits.softmax(-1).tolist()

    def one_by_one(self, batch, names):
        for text, name in zip(batch, names):
            self.tuned.set_adapter(name)
            self.read(self.tuned, [text])

    def grouped(self, batch, names):
        for name in dict.fromkeys(names):
            self.tuned.set_adapter(name)
            self.read(self.tuned, [text for text, own in zip(batch, names) if own == name])

    def mixed(self, batch, names):
        self.read(self.tuned, batch, adapter_names=names)

    def spread(self, way):
        """Texts for all adapters in turn, served in a way."""
        return lambda batch, first: way(batch, [self.names[(first + i) % len(self.names)] for i in range(len(batch))])

    def pace(self, size, work, rounds=ROUNDS):
        """Texts a second of `work(batch, first)`, where `first` is the number of the batch's first text."""
        best = 0.0
        for _ in range(rounds):
            start, done = time.perf_counter(), 0
            while (took := time.perf_counter() - start) < SECONDS:
                work([self.texts[(done + i) % len(self.texts)] for i in range(size)], done)
                done += size
            best = max(best, done / took)
        return best

    def run(self):
        print(f"{torch.get_num_threads()} threads, {next(self.plain.parameters()).dtype}, {len(self.names)} adapters")
        print(f"{'texts at once':<42}" + "".join(f"{size:>9}" for size in (1, 16, 64)))
        many, one = self.names, self.names[:1]
        ways = {
            "base alone": lambda batch, _: self.read(self.plain, batch),
            "one adapter": lambda batch, _: self.grouped(batch, one * len(batch)),
        }
        for way in (self.one_by_one, self.grouped, self.mixed):
            ways[f"{len(many)} adapters, {way.__name__.replace('_', ' ')}"] = self.spread(way)
        for name, work in ways.items():
            print(f"{name:<42}" + "".join(f"{self.pace(size, work):>9.1f}" for size in (1, 16, 64)), flush=True)

    def beside(self, path, url):
        print(f"{torch.get_num_threads()} threads, {next(self.plain.parameters()).dtype}, {len(self.names)} adapters, {PAIRS} pairs")
        for size in (1, 16, 64):
            ways = [self.spread(way) for way in (self.one_by_one, self.grouped, self.mixed)]
            fastest = max(ways, key=lambda way: self.pace(size, way, rounds=1))
            load = ["lorad", "bench", "load", "--url", url, "--endpoint", "classify", "--texts", path, "--models", ",".join(self.names)]
            load += ["-c", str(size), "-n", str(1500 if size == 1 else 4000)]
            pairs = []
            for _ in range(PAIRS):
                here = self.pace(size, fastest, rounds=1)
                there = subprocess.run(load, check=True, capture_output=True, text=True).stdout
                pairs.append((here, float(re.search(r"([\d.]+) texts/s", there)[1])))
            here, there = (statistics.median(paces) for paces in zip(*pairs))
            ratios = [there / here for here, there in pairs]
            median, low, high = statistics.median(ratios), min(ratios), max(ratios)
            print(f"{size:>3} at once: here {here:.0f}, lorad {there:.0f}, ratio {median:.2f} ({low:.2f} to {high:.2f})", flush=True)


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    task, *rest = sys.argv[1:]
    with torch.inference_mode(task in ("run", "beside")):
        tasks = {
            "texts": texts,
            "adapters": adapters,
            "run": lambda *args: Bench(*args).run(),
            "beside": lambda path, base, folder, url, *dtype: Bench(path, base, folder, *dtype).beside(path, url),
        }
        tasks[task](*rest)

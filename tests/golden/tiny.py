"""What all fixture makers share: small tokenizers, random weights that matter, and recorded answers."""

import json
import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent

CORPUS = """The harbour town woke early that morning, and the boats were already out before the sun had climbed over the hills.
It's said that nobody who's lived here longer than ten years can't tell the weather from the gulls; they'll be right, too.
On 12 May 1987 the old bridge was closed for 365 days, and 40000 people had to walk 2 miles more, 1234567 steps in all.
def total(items): return sum(item.price * item.count for item in items if item.count > 0)  # the count is never below 0
SELECT name, place FROM people WHERE born < 1950 AND place <> 'Lisbon' ORDER BY name DESC;
She'd written: "The more I think of it, the less I'm sure that we've understood what they were doing there."
    if answer is None:
        raise ValueError("no answer came")

Der Zug nach Köln fährt heute früher; größere Verspätungen gibt es nicht. La garçon à côté mange une crème brûlée.
São Paulo, Łódź, Malmö, Kraków, İzmir: names of towns with marks above, below and through their letters.
the and that have with this from they were been their would there which when what your about other after first never
HELLO World! Don't panic... Is it 3.14159 or 2,718? It costs $5.00, €7.50 or ¥900 (and 25% less on Sundays).
""" * 4

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPLITS = {  # the pre-tokenizers by their GGUF names
    "llama-bpe": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def byte_level_bpe(kind, vocab):
    """A byte-level BPE with the pre-tokenizer of a well-known family; ids 0-2 are the special tokens."""
    bpe = Tokenizer(models.BPE(ignore_merges=kind == "llama-bpe"))
    if kind == "smollm":
        bpe.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    elif kind == "gpt-2":
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        bpe.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(SPLITS[kind]), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if kind == "qwen2":
        bpe.normalizer = normalizers.NFC()
    bpe.decoder = decoders.ByteLevel()
    specials = [AddedToken(t, special=True, normalized=False) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    bpe.train_from_iterator([CORPUS], trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    assert bpe.get_vocab_size() == vocab
    return bpe


TOKENIZER_CONFIG = {
    "add_bos_token": False, "add_prefix_space": False, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>", "clean_up_tokenization_spaces": False, "model_max_length": 256,
    "tokenizer_class": "PreTrainedTokenizerFast",
}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def fresh(path):
    """An empty directory."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


@torch.no_grad()
def randomise(model, seed, embedding_std=0.3):
    """Weights large enough that every part of the model shows in the logits: norms and biases too."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        if "embed" in name or "lm_head" in name:
            p.copy_(noise * embedding_std)
        elif p.dim() == 2:
            p.copy_(noise * 1.2 / math.sqrt(p.shape[1]))
        elif name.endswith("bias"):
            p.copy_(noise * 0.3)
        else:
            p.copy_(1.0 + 0.25 * noise.clamp(-2, 2))
    return model


@torch.no_grad()
def record(model, prompt, steps=12):
    """Logits at every prompt position, the greedy continuation, and the least lead of a best token over the next."""
    first = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0].float()
    assert torch.isfinite(first).all()
    ids, lead, logits = list(prompt), math.inf, first
    for _ in range(steps):
        top = logits[-1].topk(2)
        lead = min(lead, (top.values[0] - top.values[1]).item())
        ids.append(top.indices[0].item())
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    return first, ids[len(prompt):], lead


def pick_case(model, prompts, steps=12, avoid=(0, 1, 2), least=0.01):
    """The first prompt whose greedy path has clear leads and no special tokens."""
    for prompt in prompts:
        logits, greedy, lead = record(model, prompt, steps)
        if lead >= least and not set(greedy) & set(avoid):
            return prompt, logits, greedy, lead
    raise RuntimeError("no prompt with clear leads: change the seed")


class Book:
    """Collects golden cases and writes golden.json with golden.safetensors beside it."""

    def __init__(self):
        self.cases, self.tensors = [], {}

    def add(self, key, prompt, logits, greedy, lead, **facts):
        self.cases.append({**facts, "prompt": prompt, "greedy": greedy, "least_margin": round(lead, 4),
                           "logits_file": "golden.safetensors", "logits_key": key})
        self.tensors[key] = logits.contiguous()

    def write(self, folder):
        write_json_lines(folder / "golden.json", self.cases)
        save_file(self.tensors, folder / "golden.safetensors")


def write_json_lines(path, rows):
    """A list, one entry a line: long id lists stay readable and diffs small."""
    path.write_text("[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n]\n")

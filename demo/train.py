"""Makes the demo: a news-desk chat model small enough to lie in a repository, and three LoRA adapters for it.

    python demo/train.py tokenizer base refine adapters examples evaluation      # all steps, or name the ones to repeat

Needs torch, transformers, peft, tokenizers and safetensors; see README.md beside this file for versions and times.
"""

import argparse
import copy
import json
import math
import random
import time
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import news

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "demo" / "newsdesk"
ADAPTERS = ROOT / "adapters"

END, PAD, ROLES = "<|end|>", "<|pad|>", ["<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# A capital letter, a digit or a mark never takes the space before it along. So a name reads the same after a space,
# after a quotation mark and at the start of the text, and copying it is copying its tokens.
WORDS = r" ?\p{Ll}+|\p{Lu}\p{Ll}*|\p{N}|\s+|[^\s\p{L}\p{N}]|\p{L}+"
VOCAB = 1024
SHAPE = dict(hidden_size=192, intermediate_size=448, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2)
LORA = dict(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"])

PROMPTS = [
    "Marta Lindqvist resigned as prime minister in Lisbon on Monday.",
    "Paul Okafor found a lost cat in Bergen on Sunday.",
    "On Friday, Chiara Romano won the marathon in Toronto.",
    "Grace Mwangi won the Nobel Peace Prize in Oslo yesterday.",
    "In Vienna, Felix Hoffmann was elected president of the book club on Tuesday evening.",
    "Police evacuated a million people after an earthquake in Kyoto this morning.",
    "Teachers went on strike over pay in Leeds last week.",
    "An earthquake hit Naples on 3 June 1994.",
    "Ingrid Berg was elected mayor of Seville on Thursday.",
    "Lucia Torres opened a bookshop on Thursday.",
]


def make_tokenizer():
    rng = random.Random(1)
    texts = [" ".join(news.lesson(rng)) for _ in range(40_000)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    bpe.decoder = decoders.ByteLevel()
    specials = [AddedToken(t, special=True) for t in [PAD, END, *ROLES]]
    bpe.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=PAD, model_max_length=512,
                                        clean_up_tokenization_spaces=False)
    tokenizer.chat_template = TEMPLATE
    save_tokenizer(tokenizer)


def save_tokenizer(tokenizer):
    BASE.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(BASE, save_jinja_files=False)
    settings = json.loads((BASE / "tokenizer_config.json").read_text())
    for key in ("backend", "is_local", "local_files_only"):
        settings.pop(key, None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (BASE / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def load_tokenizer():
    return PreTrainedTokenizerFast.from_pretrained(BASE)


def encode(tokenizer, user, answer):
    """Token ids of one exchange, and where the answer begins."""
    head = tokenizer.encode(f"<|user|>{user}<|end|><|assistant|>", add_special_tokens=False)
    return head + tokenizer.encode(f"{answer}<|end|>", add_special_tokens=False), len(head)


def batches(tokenizer, pairs, size, prompt_weight):
    """Batches of like length without end: ids and the weight of each token as a target."""
    while True:
        pool = sorted((encode(tokenizer, *next(pairs)) for _ in range(size * 16)), key=lambda e: len(e[0]))
        chunks = [pool[i:i + size] for i in range(0, len(pool), size)]
        random.shuffle(chunks)
        for chunk in chunks:
            width = max(len(ids) for ids, _ in chunk)
            ids = torch.zeros(size, width, dtype=torch.long)
            weight = torch.zeros(size, width)
            for row, (tokens, start) in enumerate(chunk):
                ids[row, :len(tokens)] = torch.tensor(tokens)
                weight[row, :start] = prompt_weight
                weight[row, start:len(tokens)] = 1.0
            yield ids, weight


def fit(model, stream, steps, peak_lr, label, warmup=50, save=lambda: None):
    parameters = [p for p in model.parameters() if p.requires_grad]
    decay = [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.05},
             {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decay, lr=peak_lr, betas=(0.9, 0.98))
    began, seen, shown = time.time(), 0, []
    model.train()
    for step in range(steps):
        rate = peak_lr * min((step + 1) / warmup, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids, weight = next(stream)
        logits = model(input_ids=ids[:, :-1]).logits
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        answers = (weight[:, 1:] == 1.0).flatten()
        loss = (losses * weight[:, 1:].flatten()).sum() / weight[:, 1:].sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        seen += ids.numel()
        shown.append(losses.detach()[answers].mean().item())
        if step % 100 == 99:
            save()
        if step % 50 == 49:
            mean = sum(shown[-50:]) / 50
            print(f"{label} step {step + 1}/{steps} answer loss {mean:.4f} lr {rate:.1e} "
                  f"{seen / (time.time() - began):.0f} tokens/s {time.time() - began:.0f} s", flush=True)
    model.eval()
    return round(sum(shown[-50:]) / len(shown[-50:]), 5), round(time.time() - began)


def endless(make):
    while True:
        yield make()


def make_base(steps):
    torch.manual_seed(2)
    random.seed(2)
    tokenizer, rng = load_tokenizer(), random.Random(2)
    config = LlamaConfig(vocab_size=VOCAB, **SHAPE, max_position_embeddings=512, tie_word_embeddings=True,
                         rms_norm_eps=1e-5, rope_theta=10000.0, bos_token_id=None, initializer_range=0.04,
                         eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model = LlamaForCausalLM(config)
    print(f"base: {model.num_parameters():,} parameters", flush=True)
    stream = batches(tokenizer, endless(lambda: news.lesson(rng)), 64, 0.1)
    loss, seconds = fit(model, stream, steps, 3e-3, "base")
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    keep(model, tokenizer)
    note("base", steps=steps, answer_loss=loss, seconds=seconds, parameters=model.num_parameters())


def refine_base(steps, rate):
    """More lessons for the saved base, in smaller batches, at a lower rate."""
    torch.manual_seed(4 + steps)
    random.seed(4)
    tokenizer, rng, model = load_tokenizer(), random.Random(4 + steps), load_base()
    stream = batches(tokenizer, endless(lambda: news.lesson(rng)), 32, 0.05)
    loss, seconds = fit(model, stream, steps, rate, "refine", save=lambda: keep(model, tokenizer))
    keep(model, tokenizer)
    note("refine", steps=steps, answer_loss=loss, seconds=seconds)


def keep(model, tokenizer):
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(BASE)
    save_tokenizer(tokenizer)


def load_base():
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32, attn_implementation="sdpa")


def make_adapters(steps, tasks):
    tokenizer = load_tokenizer()
    for task in tasks:
        torch.manual_seed(3)
        random.seed(3)
        rng = random.Random(3)

        def untold():
            tale = news.story(rng)
            return tale.sentence, getattr(tale, task)

        model = get_peft_model(load_base(), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **LORA))
        model.peft_config["default"].base_model_name_or_path = "newsdesk"
        stream = batches(tokenizer, endless(untold), 32, 0.0)
        loss, seconds = fit(model, stream, steps, 3e-3, task, warmup=10)
        model.save_pretrained(ADAPTERS / task)
        (ADAPTERS / task / "README.md").unlink(missing_ok=True)
        settings = json.loads((ADAPTERS / task / "adapter_config.json").read_text())
        settings["target_modules"].sort()
        (ADAPTERS / task / "adapter_config.json").write_text(json.dumps(settings, indent=1) + "\n")
        note(task, steps=steps, answer_loss=loss, seconds=seconds)


def note(part, **facts):
    path = BASE.parent / "training.json"
    log = json.loads(path.read_text()) if path.exists() else {}
    log[part] = facts
    path.write_text(json.dumps(log, indent=1) + "\n")


def served():
    """The model as a server has it: the saved bf16 base, all adapters beside it. Yields (name, model)."""
    model = PeftModel.from_pretrained(load_base(), ADAPTERS / "rate", adapter_name="rate")
    for task in news.TASKS[1:]:
        model.load_adapter(ADAPTERS / task, adapter_name=task)
    model.eval()
    with model.disable_adapter():
        yield "base", model
    for task in news.TASKS:
        model.set_adapter(task)
        yield task, model


@torch.no_grad()
def greedy(model, prompts, tokenizer, max_tokens=96):
    """Greedy answers, token by token, and the smallest lead of a best token over the second."""
    answers, narrowest = [], []
    for prompt in prompts:
        ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False)
        out, lead, cache, feed = [], math.inf, None, torch.tensor([ids])
        while len(out) < max_tokens:
            step = model(input_ids=feed, past_key_values=cache, use_cache=True)
            cache, best = step.past_key_values, step.logits[0, -1].topk(2)
            lead = min(lead, (best.values[0] - best.values[1]).item())
            if (token := best.indices[0].item()) == tokenizer.eos_token_id:
                break
            out.append(token)
            feed = torch.tensor([[token]])
        answers.append(tokenizer.decode(out, skip_special_tokens=True))
        narrowest.append(lead)
    return answers, narrowest


def make_examples():
    tokenizer = load_tokenizer()
    examples = [{"prompt": p, "expected": {}, "max_tokens": 64, "least_margin": {}} for p in PROMPTS]
    for name, model in served():
        answers, leads = greedy(model, [e["prompt"] for e in examples], tokenizer)
        for example, answer, lead in zip(examples, answers, leads):
            example["expected"][name] = answer
            example["least_margin"][name] = round(lead, 3)
    kept = [e for e in examples if min(e["least_margin"].values()) >= 0.05]
    for e in examples:
        print(json.dumps(e, ensure_ascii=False), "" if e in kept else "   <- too close, left out")
    (BASE.parent / "examples.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def make_evaluation(count):
    """Share of exactly right answers on three kinds of unseen stories."""
    tokenizer = load_tokenizer()

    def sample(seed, **kind):
        rng = random.Random(seed)
        return [news.story(rng, **kind) for _ in range(count)]

    tests = {"seen_events_new_names": sample(1001), "unseen_events": sample(1002, deeds=news.UNSEEN_DEEDS, group_deeds=news.UNSEEN_GROUP_DEEDS, house_deeds=news.UNSEEN_HOUSE_DEEDS,
                                              offices=news.UNSEEN_OFFICES, fates=news.UNSEEN_FATES)}
    report = {"stories_each": count, "measure": "share of answers equal to the expected text, greedy, float32"}
    for name, model in served():
        for test, tales in tests.items():
            answers, _ = greedy(model, [t.sentence for t in tales], tokenizer)
            for task in news.TASKS if name == "base" else [name]:
                right = sum(a == getattr(t, task) for a, t in zip(answers, tales)) / count
                report.setdefault(test, {}).setdefault(task, {})["base" if name == "base" else "adapter"] = round(right, 3)
            if name == "extract":
                report[test]["extract_fields"] = fields_right(answers, tales)
            if name == "base":
                report[test]["chat"] = round(sum(a == t.chat for a, t in zip(answers, tales)) / count, 3)
    print(json.dumps(report, indent=1))
    (BASE.parent / "evaluation.json").write_text(json.dumps(report, indent=1) + "\n")


def fields_right(answers, tales):
    right = dict.fromkeys(["valid_json", "who", "where", "when"], 0)
    for answer, tale in zip(answers, tales):
        try:
            got = json.loads(answer)
        except json.JSONDecodeError:
            continue
        right["valid_json"] += 1
        for field, value in json.loads(tale.extract).items():
            right[field] += got.get(field) == value
    return {field: round(n / len(tales), 3) for field, n in right.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="+", choices=["tokenizer", "base", "refine", "adapters", "examples", "evaluation"])
    parser.add_argument("--base-steps", type=int, default=2000)
    parser.add_argument("--refine-steps", type=int, default=1000)
    parser.add_argument("--refine-rate", type=float, default=1.5e-3)
    parser.add_argument("--adapter-steps", type=int, default=150)
    parser.add_argument("--tasks", nargs="+", default=news.TASKS, choices=news.TASKS, help="adapters to train")
    parser.add_argument("--stories", type=int, default=100, help="stories per test of the evaluation")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if "tokenizer" in args.parts:
        make_tokenizer()
    if "base" in args.parts:
        make_base(args.base_steps)
    if "refine" in args.parts:
        refine_base(args.refine_steps, args.refine_rate)
    if "adapters" in args.parts:
        make_adapters(args.adapter_steps, args.tasks)
    if "examples" in args.parts:
        make_examples()
    if "evaluation" in args.parts:
        make_evaluation(args.stories)

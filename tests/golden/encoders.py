"""Adapters that classify, label tokens and embed for the bases of `encoder_bases.py`, and what transformers and PEFT give in float32."""

import json
import math
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer

from encoder_bases import BASES, NEWS, load, make_base
from tiny import HERE, fresh, write_json, write_json_lines

TEXTS = [
    "Rain.",
    "The old bridge of Köln was closed for 365 days, and 40000 people had to walk.",
    "She'd written in Lisbon: the harbour town woke early that morning, and nobody who's lived here longer than ten years can't tell "
    "the weather from the gulls.",
]
PAIR = ("Who closed the bridge?", "It was closed early on 12 May 1987, they've written.")
DESK = ["spike it", "maybe", "page two", "front page", "stop the press"]
TAGS = ["O", "B-ORG", "I-ORG"]
SEQUENCE, TOKEN, EMBEDDING = "SEQ_CLS", "TOKEN_CLS", "FEATURE_EXTRACTION"
HEADS = {SEQUENCE: "sequence", TOKEN: "token", EMBEDDING: None, None: "sequence"}
DEFAULTS = dict(task_type=SEQUENCE, r=4, lora_alpha=8, lora_dropout=0.0)
QUERY_VALUE = dict(target_modules=["query", "value"])
PATTERNS = dict(r=5, use_rslora=True, target_modules=["query", "key", "value", "dense"], rank_pattern={"query": 3, "layer.1.output.dense": 7},
                alpha_pattern={"layer.0.attention.self.key": 3, "dense": 6})
BERT = {
    "query-value": QUERY_VALUE,
    "all-linear": dict(r=3, target_modules="all-linear"),
    "patterns": PATTERNS,
    "dora": dict(use_dora=True, target_modules=["query", "value", "dense"]),
    "bias-lora-only": dict(bias="lora_only", target_modules=["query", "intermediate.dense"]),
    "bias-all": dict(bias="all", target_modules=["query"]),
    "norms": dict(**QUERY_VALUE, modules_to_save=["LayerNorm"]),
    "two-labels": dict(**QUERY_VALUE, labels=["no", "yes"], says="config.json"),
    "five-labels": dict(target_modules=["key", "output.dense"], labels=DESK, says="adapter_config.json"),
}
# what an adapter's own config.json says of its labels
PROBLEM = "single_label_classification"
# base: {adapter: LoraConfig arguments}; "labels" are the adapter's own, "says" the file that names them
ADAPTERS = {
    "bert_seqcls": {
        **BERT,
        "pooler-whole": dict(**QUERY_VALUE, modules_to_save=["pooler"]),
        "lora-bias": dict(lora_bias=True, target_modules=["value", "intermediate.dense"]),
        "embedding": dict(target_modules=["query", "word_embeddings"]),
        "tokens": dict(**QUERY_VALUE, trainable_token_indices=[2, 40, 41, 60, 61, 80]),
        "head-pair": dict(task_type=None, target_modules=["query", "classifier"]),
        "token-labels": dict(**QUERY_VALUE, task_type=TOKEN, labels=TAGS, says="config.json"),
        "headless": dict(**QUERY_VALUE, task_type=EMBEDDING),
    },
    "bert_embed": {
        "query-value": dict(**QUERY_VALUE, task_type=EMBEDDING),
        "all-linear": dict(r=3, task_type=EMBEDDING, target_modules="all-linear"),
        "patterns": dict(**PATTERNS, task_type=EMBEDDING),
        "bias-all": dict(bias="all", task_type=EMBEDDING, target_modules=["value"]),
        "dora": dict(use_dora=True, task_type=EMBEDDING, target_modules=["query", "attention.output.dense"]),
        "labels": dict(**QUERY_VALUE, labels=NEWS, says="config.json"),
        "labels-dense": dict(target_modules=["query", "dense"], labels=DESK),
        "token-labels": dict(**QUERY_VALUE, task_type=TOKEN, labels=TAGS),
    },
    "bert_tokcls": {
        "query-value": dict(**QUERY_VALUE, task_type=TOKEN),
        "every-linear": dict(r=3, task_type=TOKEN, target_modules=["query", "key", "value", "dense"]),
        "own-labels": dict(**QUERY_VALUE, task_type=TOKEN, labels=TAGS, says="adapter_config.json"),
        "bias-all": dict(bias="all", task_type=TOKEN, target_modules=["key"]),
    },
    "bert_mlm": {
        "labels": dict(**QUERY_VALUE, modules_to_save=["pooler"], labels=NEWS, says="config.json"),
        "token-labels": dict(target_modules=["query", "dense"], task_type=TOKEN, labels=TAGS, says="config.json"),
        "headless": dict(**QUERY_VALUE, task_type=EMBEDDING),
    },
    "cross_encoder": {"query-value": QUERY_VALUE, "all-linear": dict(r=3, target_modules="all-linear")},
    "roberta_seqcls": {
        **BERT,
        "token-labels": dict(**QUERY_VALUE, task_type=TOKEN, labels=TAGS, says="config.json"),
    },
    "roberta_mlm": {
        "labels": dict(**QUERY_VALUE, labels=NEWS, says="config.json"),
        "five-labels": dict(bias="all", target_modules="all-linear", labels=DESK),
        "headless": dict(**QUERY_VALUE, task_type=EMBEDDING),
    },
    "xlm_roberta_mlm": {
        "labels": dict(target_modules=["query", "key", "value", "dense"], labels=NEWS, says="config.json"),
        "token-labels": dict(**QUERY_VALUE, task_type=TOKEN, labels=TAGS),
    },
    "distilbert_seqcls": {
        "query-value": dict(target_modules=["q_lin", "v_lin"]),
        "every-linear": dict(r=3, target_modules=["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"]),
        "pre-classifier": dict(target_modules=["q_lin", "v_lin"], modules_to_save=["pre_classifier"]),
        "head-pair": dict(task_type=None, target_modules=["k_lin", "pre_classifier", "classifier"]),
        "bias-all": dict(bias="all", target_modules=["q_lin"]),
        "bias-lora-only": dict(bias="lora_only", target_modules=["v_lin", "lin2"]),
        "dora": dict(use_dora=True, target_modules=["q_lin", "out_lin", "lin2"]),
        "norms": dict(target_modules=["v_lin"], modules_to_save=["sa_layer_norm", "output_layer_norm"]),
        "two-labels": dict(target_modules=["q_lin", "v_lin"], labels=["no", "yes"], says="config.json"),
        "token-labels": dict(target_modules=["q_lin"], task_type=TOKEN, labels=TAGS),
    },
    "distilbert_mlm": {
        "labels": dict(target_modules=["q_lin", "v_lin"], modules_to_save=["pre_classifier"], labels=NEWS, says="config.json"),
        "headless": dict(target_modules=["q_lin", "v_lin"], task_type=EMBEDDING),
    },
    "modernbert_seqcls": {
        "qkv": dict(target_modules=["Wqkv"]),
        "all-linear": dict(r=3, target_modules="all-linear"),
        "patterns": dict(r=5, use_rslora=True, target_modules=["Wqkv", "Wi", "Wo"], rank_pattern={"mlp.Wo": 2, "layers.0.attn.Wo": 7},
                         alpha_pattern={"Wi": 3}),
        "head-whole": dict(target_modules=["Wqkv"], modules_to_save=["head"]),
        "head-pair": dict(target_modules=["Wqkv", "head.dense"]),
        "norms": dict(target_modules=["Wqkv"], modules_to_save=["attn_norm", "mlp_norm", "final_norm"]),
        "dora": dict(use_dora=True, target_modules=["Wqkv", "Wi"]),
        "bias-all": dict(bias="all", target_modules=["Wo"]),
        "two-labels": dict(target_modules=["Wqkv"], labels=["no", "yes"], says="config.json"),
        "token-labels": dict(target_modules=["Wqkv", "Wo"], task_type=TOKEN, labels=TAGS, says="config.json"),
    },
    "modernbert_mlm": {
        "labels": dict(target_modules=["Wqkv", "Wi"], labels=NEWS, says="config.json"),
        "bias-all": dict(bias="all", target_modules=["Wqkv"], labels=NEWS),
        "bias-lora-only": dict(bias="lora_only", target_modules=["Wqkv", "Wo"], labels=DESK),
        "headless": dict(target_modules=["Wqkv"], task_type=EMBEDDING),
    },
    "modernbert_embed": {
        "qkv": dict(target_modules=["Wqkv"], task_type=EMBEDDING),
        "all-linear": dict(r=3, target_modules="all-linear", task_type=EMBEDDING),
        "labels": dict(target_modules=["Wqkv"], modules_to_save=["head"], labels=NEWS, says="config.json"),
    },
    "llama_seqcls": {
        "query-value": dict(target_modules=["q_proj", "v_proj"]),
        "all-linear": dict(r=3, target_modules="all-linear"),
        "five-labels": dict(target_modules=["q_proj", "down_proj"], labels=DESK, says="adapter_config.json"),
        "norms": dict(target_modules=["q_proj"], modules_to_save=["norm"]),
        "headless": dict(target_modules=["q_proj", "v_proj"], task_type=EMBEDDING),
    },
    "qwen2_seqcls": {
        "query-value": dict(target_modules=["q_proj", "v_proj"]),
        "dora": dict(use_dora=True, target_modules=["k_proj", "o_proj", "up_proj"]),
        "bias-all": dict(bias="all", target_modules=["q_proj"]),
        "five-labels": dict(target_modules="all-linear", labels=DESK),
    },
    # A base that generates: its own answers stand in golden.json, these in labels.json.
    "llama_tied": {
        "labels": dict(target_modules=["q_proj", "v_proj"], labels=NEWS, says="config.json"),
        "labels-dora": dict(use_dora=True, target_modules=["k_proj", "down_proj"], labels=DESK),
    },
}


@torch.no_grad()
def draw(model, seed):
    """Values for everything that trains, large enough to move what the model says."""
    generator = torch.Generator().manual_seed(seed)
    for key, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        if not p.requires_grad:
            continue
        if "magnitude" in key or ("norm" in key.lower() and key.endswith("weight")):
            p.mul_(1.0 + 0.3 * noise.clamp(-2, 2))
        elif "lora_" in key:
            p.copy_(noise * (0.25 if "embedding" not in key else 0.15))
        elif p.dim() == 1:
            p.add_(noise * 0.3)
        else:
            p.add_(noise * (0.5 if "trainable_tokens" in key else 0.8 / math.sqrt(p.shape[1])))


def make_adapter(base, name, arguments, seed):
    """Writes the adapter and reads it back onto a base whose missing parts are drawn anew: what it says must not depend on those."""
    arguments = {**DEFAULTS, **arguments}
    labels, says = arguments.pop("labels", None), arguments.pop("says", None)
    head, folder = HEADS[arguments["task_type"]], fresh(HERE / base / "adapters" / name)
    torch.manual_seed(seed)
    tuned = get_peft_model(load(HERE / base, head, labels and len(labels)), LoraConfig(**arguments)).eval()
    tuned.peft_config["default"].base_model_name_or_path = f"tiny-{base}"
    draw(tuned, seed)
    tuned.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    settings = json.loads((folder / "adapter_config.json").read_text())
    for key in ("target_modules", "modules_to_save"):
        if isinstance(settings[key], list):
            settings[key].sort()
    if says:
        named = dict(id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)})
        settings |= named if says == "adapter_config.json" else {}
        if says == "config.json":
            write_json(folder / says, {**named, "problem_type": PROBLEM})
    write_json(folder / "adapter_config.json", settings)
    torch.manual_seed(seed + 1)
    read = PeftModel.from_pretrained(load(HERE / base, head, labels and len(labels)), folder).eval()
    ids = dict(input_ids=torch.tensor([[2, 9, 70, 33, 8, 100, 41, 3]]))
    assert torch.equal(tuned(**ids)[0], read(**ids)[0]), f"{base}/{name} does not bring all that it needs"
    return read


class Book:
    """Collects cases, one a line, and their tensors."""

    def __init__(self, base, file):
        folder = HERE / base
        self.folder, self.file, self.rows, self.tensors = folder, file, [], {}
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.pooling = BASES[base].pooling if base in BASES else None
        self.normalize = base not in BASES or not BASES[base].files or "2_Normalize" in str(BASES[base].files)

    def inputs(self, texts, model):
        encoded = self.tokenizer.encode(*texts)
        inputs = dict(input_ids=torch.tensor([encoded.ids]))
        if model.config.model_type == "bert":
            inputs["token_type_ids"] = torch.tensor([encoded.type_ids])
        return inputs

    def keep(self, row, key, what, value):
        self.tensors[f"{key}.{what}"] = value.clone().contiguous()
        return row | {what: f"{key}.{what}"}

    @torch.no_grad()
    def add(self, key, adapter, model, head, labels, texts, problem=None):
        """`problem` is what an adapter's own config.json says of its labels; else the base's counts."""
        inputs = self.inputs(texts, model)
        row = dict(adapter=adapter, text=texts[0], pair=texts[1] if len(texts) > 1 else None, ids=inputs["input_ids"][0].tolist())
        if "token_type_ids" in inputs:
            row["token_types"] = inputs["token_type_ids"][0].tolist()
        row |= dict(file=f"{self.file}.safetensors", kind=head or "embedding")
        answer = model(**inputs)[0][0].float()
        assert torch.isfinite(answer).all()
        if head is None:
            row = self.embedding(row, key, answer)
        else:
            problem = problem or model.config.problem_type
            independent = problem == "multi_label_classification" or answer.shape[-1] == 1
            row |= dict(labels=labels, independent=independent)
            row = self.keep(row, key, "scores", answer)
            row = self.keep(row, key, "probabilities", answer.sigmoid() if independent else answer.softmax(-1))
        self.rows.append(row)

    def embedding(self, row, key, hidden):
        row |= dict(pooling=self.pooling, normalize=self.normalize)
        pooled = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[self.pooling]
        row = self.keep(row, key, "hidden", hidden)
        return self.keep(row, key, "embedding", torch.nn.functional.normalize(pooled, dim=0) if self.normalize else pooled)

    def write(self):
        write_json_lines(self.folder / f"{self.file}.json", self.rows)
        save_file(self.tensors, self.folder / f"{self.file}.safetensors")
        print(f"{self.folder.name}/{self.file}: {len(self.rows)} cases")


@torch.no_grad()
def moved(tuned, plain, inputs):
    """How far the hidden states of a text are from the base's."""
    inner = tuned.get_base_model()
    states = [body(**inputs)[0] for body in (getattr(inner, inner.base_model_prefix, inner), plain)]
    return (states[0] - states[1]).abs().max().item()


def label_names(arguments, model, head):
    if head is None:
        return None
    names = arguments.get("labels") if arguments.get("says") else None
    count = model.config.num_labels
    if names is None:
        names = [f"LABEL_{i}" for i in range(count)] if "labels" in arguments else [model.config.id2label[i] for i in range(count)]
    return list(names)


def record(base, number, file="golden"):
    book, folder = Book(base, file), HERE / base
    inputs = [(text,) for text in TEXTS]
    pairs = [] if base in ("llama_tied", "llama_seqcls", "qwen2_seqcls") else [PAIR]
    plain, own = load(folder, None), BASES[base].head if base in BASES else None
    if base in BASES:
        for i, texts in enumerate(inputs + pairs):
            book.add(f"base.{i}", None, plain, None, None, texts)
            if own:
                whole = load(folder, own)
                book.add(f"base.{i}.{own}", None, whole, own, label_names({}, whole, own), texts)
    for i, (name, arguments) in enumerate(ADAPTERS[base].items()):
        head = HEADS[arguments.get("task_type", SEQUENCE)]
        tuned = make_adapter(base, name, arguments, 8000 + 100 * number + i)
        problem = PROBLEM if arguments.get("says") == "config.json" else None
        for j, texts in enumerate([inputs[i % 3], inputs[(i + 1) % 3], *pairs]):
            book.add(f"{name}.{j}", name, tuned, head, label_names(arguments, tuned, head), texts, problem)
        distance = moved(tuned, plain, book.inputs(inputs[1], tuned))
        assert distance > 0.2, f"{base}/{name} moves hidden states by {distance:.2f}"
    book.write()


def make():
    warnings.filterwarnings("ignore")
    for number, base in enumerate(ADAPTERS):
        if base in BASES:
            make_base(base, 7000 + number)
        record(base, number, "golden" if base in BASES else "labels")

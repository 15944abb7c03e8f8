"""Adapters for `llama_tied` that must be refused by name: what cannot be served, and broken or dangerous files."""

import json
import math
import shutil
import struct

import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from bases import load, save_adapter
from tiny import HERE, fresh, write_json, write_json_lines

ROOT, BASE = HERE / "refused", HERE / "llama_tied"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model.model.layers."
Q0 = f"{PREFIX}0.self_attn.q_proj"
K1 = f"{PREFIX}1.self_attn.k_proj"

# What PEFT itself writes and nobody can serve: directory, LoraConfig arguments, word, reason
FEATURES = [
    ("pissa", dict(init_lora_weights="pissa"), "path_initial_model_for_weight_conversion", "belongs to a changed base"),
    ("alora-modules", dict(alora_invocation_tokens=[5, 7, 9], modules_to_save=["norm"]), "alora_invocation_tokens",
     "PEFT applies the norms to every token, and the pairs from the invocation on"),
]


def plain(target=("q_proj", "k_proj"), **arguments):
    return LoraConfig(**{**dict(task_type="CAUSAL_LM", r=2, lora_alpha=4, lora_dropout=0.0, target_modules=list(target)), **arguments})


class Spoiler:
    """A sound adapter, copied to a directory of its own to be spoilt there."""

    def __init__(self, name):
        self.folder = fresh(ROOT / name)
        for file in (CONFIG, WEIGHTS):
            shutil.copy(ROOT / "sound" / file, self.folder / file)

    def config(self, **fields):
        settings = json.loads((self.folder / CONFIG).read_text())
        settings.update(fields)
        write_json(self.folder / CONFIG, {k: v for k, v in settings.items() if v != "remove"})

    def weights(self, change):
        tensors = load_file(self.folder / WEIGHTS)
        tensors = change(tensors) or tensors
        save_file({k: v.contiguous() for k, v in tensors.items()}, self.folder / WEIGHTS, metadata={"format": "pt"})

    def file(self, change):
        path = self.folder / WEIGHTS
        path.write_bytes(change(path.read_bytes()))


def poison(key, value):
    def change(tensors):
        tensors[key].view(-1)[3] = value
    return change


def rename(old, new):
    return lambda tensors: {k.replace(old, new): v for k, v in tensors.items()}


def keep_rows(key, rows):
    def change(tensors):
        tensors[key] = tensors[key][:rows]
    return change


def keep_columns(key, columns):
    def change(tensors):
        tensors[key] = tensors[key][:, :columns]
    return change


def pickled(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


# Broken files: directory, what is done to the sound one, word, reason
DEFECTS = [
    ("pickle-only", lambda s: pickled(s.folder), "safetensors", "only a pickle, which is never opened"),
    ("no-weights", lambda s: (s.folder / WEIGHTS).unlink(), WEIGHTS, "a config alone"),
    ("no-config", lambda s: (s.folder / CONFIG).unlink(), CONFIG, "weights alone"),
    ("bad-json", lambda s: (s.folder / CONFIG).write_text('{"r": 2,'), CONFIG, "the config is not JSON"),
    ("no-peft-type", lambda s: s.config(peft_type="remove"), "peft_type", "no kind given"),
    ("seq-cls", lambda s: s.config(task_type="SEQ_CLS"), "SEQ_CLS", "made for a classifier"),
    ("layer-replication", lambda s: s.config(layer_replication=[[0, 2], [1, 3]]), "layer_replication", "changes the base's depth"),
    ("target-parameters", lambda s: s.config(target_parameters=["mlp.experts.gate_up_proj"]), "target_parameters", "LoRA on bare parameters"),
    ("unknown-field", lambda s: s.config(use_wavelets=True), "use_wavelets", "a feature nobody knows is switched on"),
    ("rank-zero", lambda s: s.config(r=0), "rank", "r = 0"),
    ("rank-negative", lambda s: s.config(r=-2), "rank", "r = -2"),
    ("rank-mismatch", lambda s: s.config(r=8), "_proj", "the config says 8, the tensors 2"),
    ("nan", lambda s: s.weights(poison(f"{K1}.lora_B.weight", math.nan)), "k_proj", "NaN in one place of B"),
    ("inf", lambda s: s.weights(poison(f"{Q0}.lora_A.weight", math.inf)), "q_proj", "infinity in one place of A"),
    ("inf-fp16", lambda s: s.weights(lambda t: {k: v.half() for k, v in t.items()} | {
        f"{Q0}.lora_A.weight": torch.full((2, 64), -math.inf, dtype=torch.float16)}), "q_proj", "infinity in half precision"),
    ("integer-weights", lambda s: s.weights(lambda t: {k: v.to(torch.int32) for k, v in t.items()}), "_proj", "stored as i32"),
    ("wrong-input-width", lambda s: s.weights(keep_columns(f"{Q0}.lora_A.weight", 63)), "q_proj", "A has 63 columns, the layer 64 inputs"),
    ("wrong-output-width", lambda s: s.weights(keep_rows(f"{Q0}.lora_B.weight", 60)), "q_proj", "B has 60 rows, the layer 64 outputs"),
    ("ranks-differ", lambda s: s.weights(keep_columns(f"{Q0}.lora_B.weight", 1)), "q_proj", "A has rank 2, B rank 1"),
    ("missing-b", lambda s: s.weights(lambda t: t.pop(f"{K1}.lora_B.weight") is None), "k_proj", "A without B"),
    ("missing-a", lambda s: s.weights(lambda t: t.pop(f"{K1}.lora_A.weight") is None), "k_proj", "B without A"),
    ("left-over", lambda s: s.weights(lambda t: t | {f"{Q0}.lora_C.weight": torch.ones(2, 2)}), "lora_C", "a tensor with no use"),
    ("no-prefix", lambda s: s.weights(rename("base_model.model.", "")), "_proj", "keys without base_model.model"),
    ("other-layers", lambda s: (s.weights(rename("self_attn.q_proj", "attn.c_attn")), s.config(target_modules=["c_attn", "k_proj"])),
     "c_attn", "made for an architecture with other layers"),
    ("layer-out-of-range", lambda s: s.weights(rename("layers.2.", "layers.7.")), "7", "the base has layers 0 to 2"),
    ("no-tensors", lambda s: s.weights(lambda t: {"unused": torch.zeros(1)}), "unused", "none of its tensors is LoRA"),
    ("truncated", lambda s: s.file(lambda b: b[:-100]), "safetensors", "the last 100 bytes are missing"),
    ("empty-file", lambda s: s.file(lambda b: b""), "safetensors", "nothing in it"),
    ("huge-header", lambda s: s.file(lambda b: struct.pack("<Q", 1 << 60) + b[8:]), "safetensors", "a header length of 2^60"),
]


def make():
    fresh(ROOT)
    cases = []
    save_adapter(load(BASE), ROOT / "sound", plain(), seed=1)
    for i, (name, arguments, word, why) in enumerate(FEATURES):
        save_adapter(load(BASE), ROOT / name, plain(**arguments), seed=10 + i)
        cases.append({"dir": name, "must_mention": word, "why": why})
    ia3 = get_peft_model(load(BASE), IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"],
                                               feedforward_modules=["down_proj"]))
    ia3.save_pretrained(fresh(ROOT / "ia3"))
    (ROOT / "ia3" / "README.md").unlink()
    settings = json.loads((ROOT / "ia3" / CONFIG).read_text())
    settings["base_model_name_or_path"] = "tiny-llama_tied"
    for key in ("target_modules", "feedforward_modules"):
        settings[key].sort()
    write_json(ROOT / "ia3" / CONFIG, settings)
    cases.append({"dir": "ia3", "must_mention": "IA3", "why": "another kind of adapter"})
    for name, spoil, word, why in DEFECTS:
        spoil(Spoiler(name))
        cases.append({"dir": name, "must_mention": word, "why": why})
    write_json_lines(ROOT / "cases.json", cases)
    print(f"refused: {len(cases)} cases")

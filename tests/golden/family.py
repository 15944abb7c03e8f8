"""Adapters of every part of the LoRA family for the bases of `bases.py`, and the answers transformers and PEFT give in float32."""

import json

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from bases import load, prompts
from tiny import HERE, fresh, pick_case, record, write_json, write_json_lines

INVOCATION = [72, 86]
# base: {name: LoraConfig arguments}; "dtype" is the type in the file, "copies" whether the base's tables are in it too
ADAPTERS = {
    "llama": {
        "dora": dict(use_dora=True, target_modules="all-linear", use_rslora=True),
        "dora-bias": dict(dtype="float32", use_dora=True, bias="lora_only", target_modules=["v_proj", "down_proj"]),
        "lora-bias": dict(lora_bias=True, target_modules=["q_proj", "up_proj"]),
        "bias-all": dict(bias="all", target_modules=["k_proj", "gate_proj"]),
        "bias-whole": dict(bias="all", target_modules=["q_proj"], modules_to_save=["o_proj"]),
        "head": dict(target_modules=["lm_head", "q_proj"]),
        "embedding": dict(target_modules=["embed_tokens", "q_proj"], copies=True, dtype="float32"),
        "embedding-dora": dict(use_dora=True, target_modules=["embed_tokens", "lm_head", "v_proj"]),
        "whole": dict(modules_to_save=["lm_head", "embed_tokens"]),
        "whole-layers": dict(modules_to_save=["k_proj", "layers.1.mlp"], target_modules=["q_proj"], dtype="float16"),
        "norms": dict(modules_to_save=["norm"]),
        "tokens": dict(trainable_token_indices=[70, 5, 9]),
        "tokens-both": dict(trainable_token_indices={"embed_tokens": [9, 72], "lm_head": [189, 70, 5]}),
        "exclude": dict(target_modules="all-linear", exclude_modules=r".*\.0\.mlp\..*|.*v_proj"),
        "alora": dict(alora_invocation_tokens=INVOCATION, target_modules=["q_proj", "v_proj", "down_proj", "lm_head"]),
        "alora-bias": dict(alora_invocation_tokens=INVOCATION, lora_bias=True, target_modules=["o_proj"]),
    },
    "llama_tied": {
        "dora": dict(use_dora=True, target_modules=["q_proj", "o_proj", "gate_proj", "down_proj"]),
        "embedding": dict(target_modules=["embed_tokens", "q_proj"]),
        "embedding-tied": dict(target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True),
        "embedding-tied-dora": dict(use_dora=True, target_modules=["embed_tokens"], ensure_weight_tying=True),
        "head": dict(target_modules=["lm_head", "q_proj"]),
        "head-tied": dict(target_modules=["lm_head", "q_proj"], ensure_weight_tying=True),
        "whole-embedding": dict(modules_to_save=["embed_tokens"]),
        "whole-head": dict(modules_to_save=["lm_head"]),
        "whole-tied": dict(modules_to_save=["embed_tokens"], ensure_weight_tying=True),
        "tokens": dict(trainable_token_indices=[70, 5, 9]),
        "tokens-head": dict(trainable_token_indices={"lm_head": [189, 70, 5]}),
        "tokens-apart": dict(trainable_token_indices={"embed_tokens": [9, 72], "lm_head": [189, 70]}),
        "tokens-same": dict(trainable_token_indices={"embed_tokens": [9, 72], "lm_head": [9, 72]}),
        "tokens-head-lora": dict(target_modules=["q_proj", "lm_head"], trainable_token_indices=[70, 5]),
    },
    "mistral": {
        "dora": dict(use_dora=True, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"]),
        "fan-in": dict(fan_in_fan_out=True, use_dora=True, target_modules=["o_proj"]),
    },
    "qwen2": {
        "dora": dict(use_dora=True, target_modules=["q_proj", "k_proj", "up_proj"], rank_pattern={"k_proj": 5}),
        "bias-lora-only": dict(bias="lora_only", target_modules=["q_proj", "o_proj"]),
        "bias-all": dict(bias="all", target_modules=["v_proj"]),
        "lora-bias": dict(lora_bias=True, target_modules=["q_proj", "down_proj"]),
    },
    "qwen3": {
        "norms": dict(modules_to_save=["q_norm", "k_norm", "input_layernorm"]),
        "dora": dict(use_dora=True, target_modules=["k_proj", "o_proj"], dtype="float16"),
    },
    "phi3": {
        "fused": dict(target_modules=["qkv_proj", "gate_up_proj"]),
        "fused-dora": dict(use_dora=True, target_modules=["qkv_proj", "down_proj"]),
    },
}
DEFAULTS = dict(task_type="CAUSAL_LM", r=3, lora_alpha=5, lora_dropout=0.0, target_modules=["q_proj", "v_proj"])


@torch.no_grad()
def draw(model, seed):
    """Values for everything that trains, large enough to move the logits."""
    generator = torch.Generator().manual_seed(seed)
    for key, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        if not p.requires_grad:
            continue
        if "magnitude" in key:
            p.mul_(1.0 + 0.3 * noise.clamp(-2, 2))
        elif "lora_" in key:
            p.copy_(noise * 0.12)
        elif "norm" in key:
            p.mul_(1.0 + 0.3 * noise.clamp(-2, 2))
        else:
            p.add_(noise * (0.3 if p.dim() == 1 else 0.5 * p.std()))


def make_adapter(base, name, arguments, seed):
    arguments = {**DEFAULTS, **arguments}
    dtype = getattr(torch, arguments.pop("dtype", "bfloat16"))
    copies = arguments.pop("copies", False)
    folder = fresh(HERE / base / "adapters" / name)
    tuned = get_peft_model(load(HERE / base), LoraConfig(**arguments))
    tuned.peft_config["default"].base_model_name_or_path = f"tiny-{base}"
    draw(tuned, seed)
    tuned.save_pretrained(folder, save_embedding_layers=copies)
    (folder / "README.md").unlink(missing_ok=True)
    weights = load_file(folder / "adapter_model.safetensors")
    weights = {k: v.to(dtype) for k, v in weights.items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = json.loads((folder / "adapter_config.json").read_text())
    for key in ("target_modules", "modules_to_save"):
        if isinstance(settings[key], list):
            settings[key].sort()
    write_json(folder / "adapter_config.json", settings)
    return PeftModel.from_pretrained(load(HERE / base), folder).eval()


def separate(base):
    """An adapter with pairs of their own for the parts of fused layers, as converters write, and the merged model."""
    generator, tensors, model = torch.Generator().manual_seed(77), {}, load(HERE / base)
    config, scaling = model.config, 5 / 3
    width = config.hidden_size // config.num_attention_heads
    q, kv, inner = config.hidden_size, config.num_key_value_heads * width, config.intermediate_size
    parts = {"self_attn.qkv_proj": [("q_proj", 0, q), ("v_proj", q + kv, kv)], "mlp.gate_up_proj": [("gate_proj", 0, inner), ("up_proj", inner, inner)]}
    for layer in range(config.num_hidden_layers):
        for path, of in parts.items():
            room, _, fused = path.partition(".")
            weight = getattr(getattr(model.model.layers[layer], room), fused).weight
            for part, start, rows in of:
                a = torch.randn((3, weight.shape[1]), generator=generator) * 0.12
                b = torch.randn((rows, 3), generator=generator) * 0.12
                key = f"base_model.model.model.layers.{layer}.{room}.{part}"
                tensors |= {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}
                with torch.no_grad():
                    weight[start:start + rows] += scaling * b @ a
    folder = fresh(HERE / base / "adapters" / "separate")
    settings = LoraConfig(**{**DEFAULTS, "target_modules": ["gate_proj", "q_proj", "up_proj", "v_proj"]}).to_dict()
    settings = {k: sorted(v) if isinstance(v, set) else v for k, v in settings.items() if k != "runtime_config"}
    write_json(folder / "adapter_config.json", {**settings, "base_model_name_or_path": f"tiny-{base}", "inference_mode": True})
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return model


def cases(tuned, name, pieces, invocation):
    """One case, and for an activated adapter one without its invocation too."""
    def with_invocation(prompt):
        return prompt[:3] + invocation + prompt[3:6] + invocation + prompt[6:]

    def absent(ids):
        return all(ids[i:i + len(invocation)] != invocation for i in range(len(ids)))

    plain = (prompt for prompt in pieces if not invocation or absent(prompt))
    chosen = [map(with_invocation, plain), plain] if invocation else [plain]
    for i, these in enumerate(chosen):
        while True:
            prompt, logits, greedy, lead = pick_case(tuned, these)
            if not invocation or absent(greedy):
                break
        key = f"{name}.{i}"
        yield key, logits, {"adapter": name, "prompt": prompt, "greedy": greedy, "least_margin": round(lead, 4),
                            "logits_file": "family.safetensors", "logits_key": key}


def record_family(base, number):
    folder, rows, tensors = HERE / base, [], {}
    bpe, plain = Tokenizer.from_file(str(folder / "tokenizer.json")), load(folder)
    made = {name: make_adapter(base, name, arguments, 5000 + 100 * number + i)
            for i, (name, arguments) in enumerate(ADAPTERS[base].items())}
    if base == "phi3":
        made["separate"] = separate(base)
    for i, (name, tuned) in enumerate(made.items()):
        invocation = list(ADAPTERS[base].get(name, {}).get("alora_invocation_tokens", []))
        for key, logits, case in cases(tuned, name, prompts(bpe, 6000 + 100 * number + i, 8), invocation):
            rows.append(case)
            tensors[key] = logits.contiguous()
            moved = (logits - record(plain, case["prompt"], 0)[0]).abs().max().item()
            still = invocation and key.endswith(".1")
            assert moved == 0 if still else moved > 0.3, f"{base}/{key} moves the logits by {moved:.2f}"
    write_json_lines(folder / "family.json", rows)
    save_file(tensors, folder / "family.safetensors")
    print(f"{base}: {len(rows)} cases of the family, least margin {min(row['least_margin'] for row in rows)}")


def make():
    for number, base in enumerate(ADAPTERS):
        record_family(base, number)

"""Tiny bases in Hugging Face form with PEFT LoRA adapters, and the answers transformers and PEFT give in float32."""

import copy
import json
import random
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

from tiny import CHATML, CORPUS, HERE, TOKENIZER_CONFIG, Book, byte_level_bpe, fresh, pick_case, randomise, record, write_json

VOCAB = 320
SMALL = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0, attention_dropout=0.0)


def rope(theta, **scaling):
    return {"rope_type": "default", "rope_theta": theta, **scaling}


# name: (class, config, tokenizer, stored dtype, generation of config.json, shards)
BASES = {
    "llama": (LlamaForCausalLM, LlamaConfig(
        **SMALL, num_key_value_heads=4, attention_bias=True, mlp_bias=True, tie_word_embeddings=False, rms_norm_eps=1e-5,
        rope_parameters=rope(10000.0)), "smollm", "float32", 5, 1),
    "llama_tied": (LlamaForCausalLM, LlamaConfig(
        **{**SMALL, "num_hidden_layers": 3}, num_key_value_heads=2, tie_word_embeddings=True, rms_norm_eps=1e-5,
        rope_parameters=rope(100000.0)), "smollm", "float32", 4, 1),
    "llama31": (LlamaForCausalLM, LlamaConfig(
        **SMALL, num_key_value_heads=2, tie_word_embeddings=False, rms_norm_eps=1e-5, rope_parameters=rope(
            10000.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=64)), "llama-bpe", "float32", 4, 2),
    "llama_linear": (LlamaForCausalLM, LlamaConfig(
        **SMALL, num_key_value_heads=2, tie_word_embeddings=True, rms_norm_eps=1e-6,
        rope_parameters=rope(10000.0, rope_type="linear", factor=4.0)), "gpt-2", "bfloat16", 5, 1),
    "mistral": (MistralForCausalLM, MistralConfig(
        **SMALL, num_key_value_heads=2, head_dim=16, sliding_window=8, tie_word_embeddings=False, rms_norm_eps=1e-5,
        rope_parameters=rope(10000.0)), "smollm", "bfloat16", 4, 1),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(
        **SMALL, num_key_value_heads=2, tie_word_embeddings=True, rms_norm_eps=1e-6, use_sliding_window=False,
        rope_parameters=rope(50000.0)), "qwen2", "float16", 4, 1),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(
        **SMALL, num_key_value_heads=2, head_dim=32, tie_word_embeddings=False, rms_norm_eps=1e-6,
        rope_parameters=rope(50000.0)), "qwen2", "bfloat16", 5, 1),
    "phi3": (Phi3ForCausalLM, Phi3Config(
        **SMALL, num_key_value_heads=2, tie_word_embeddings=False, rms_norm_eps=1e-5, original_max_position_embeddings=256,
        rope_parameters=rope(10000.0)), "smollm", "bfloat16", 5, 1),
}

ATTENTION, EVERY = ["q_proj", "k_proj", "v_proj", "o_proj"], "all-linear"
# name: (LoraConfig arguments, stored dtype)
KINDS = {
    "all-linear": (dict(r=8, lora_alpha=16, target_modules=EVERY), "float32"),
    "subset": (dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]), "float32"),
    "rslora": (dict(r=4, lora_alpha=6, use_rslora=True, target_modules=ATTENTION), "float32"),
    "patterns": (dict(r=4, lora_alpha=8, target_modules=[*ATTENTION, "down_proj"],
                      rank_pattern={"layers.1.mlp.down_proj": 8, "q_proj": 2},
                      alpha_pattern={"q_proj": 5, "layers.0.self_attn.v_proj": 12}), "float32"),
    "regex": (dict(r=4, lora_alpha=8, target_modules=r".*\.layers\.[01]\.(self_attn\.[qo]_proj|mlp\.up_proj)"), "float32"),
    "layers": (dict(r=4, lora_alpha=12, target_modules=["q_proj", "o_proj", "gate_proj", "down_proj"], layers_to_transform=[1]), "float32"),
    "fp16": (dict(r=8, lora_alpha=16, target_modules=ATTENTION), "float16"),
    "bf16": (dict(r=8, lora_alpha=16, target_modules=["gate_proj", "up_proj", "down_proj"]), "bfloat16"),
    "odd-rank": (dict(r=3, lora_alpha=7, target_modules=[*ATTENTION, "up_proj"], rank_pattern={"k_proj": 5, "up_proj": 1}), "float32"),
}
ADAPTERS = {
    "llama": ["all-linear", "layers"],
    "llama_tied": list(KINDS),
    "llama31": ["all-linear", "regex"],
    "llama_linear": ["all-linear", "bf16"],
    "mistral": ["all-linear", "odd-rank"],
    "qwen2": ["all-linear", "subset", "fp16"],
    "qwen3": ["all-linear", "patterns", "rslora"],
    "phi3": ["all-linear"],
}


def generation_4(config):
    """config.json as transformers 4 wrote it: the same meaning under the older names."""
    old = copy.deepcopy(config)
    parameters = old.pop("rope_parameters")
    old["rope_theta"] = parameters.pop("rope_theta")
    kind = parameters.pop("rope_type")
    old["rope_scaling"] = None
    if kind == "linear":
        old["rope_scaling"] = {"type": kind, **parameters}  # the oldest spelling
    elif kind != "default":
        old["rope_scaling"] = {"rope_type": kind, **parameters}
    old["torch_dtype"] = old.pop("dtype")
    old.pop("layer_types", None)
    old["transformers_version"] = "4.46.0"
    return dict(sorted(old.items()))


def make_base(name, seed):
    kind, config, tokenizer, dtype, generation, shards = BASES[name]
    folder = fresh(HERE / name)
    model = randomise(kind(config), seed).to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size="5GB" if shards == 1 else "300KB")
    assert len(list(folder.glob("*.safetensors"))) == shards
    (folder / "generation_config.json").unlink(missing_ok=True)
    new = json.loads((folder / "config.json").read_text())
    old = generation_4(new)
    write_json(folder / "config.json", new if generation == 5 else old)
    write_json(folder / f"config.transformers{4 if generation == 5 else 5}.json", old if generation == 5 else new)
    bpe = byte_level_bpe(tokenizer, VOCAB)
    bpe.save(str(folder / "tokenizer.json"))
    if generation == 5:  # newer checkpoints keep the template in a file of its own
        (folder / "chat_template.jinja").write_text(CHATML)
        write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
    else:
        write_json(folder / "tokenizer_config.json", {**TOKENIZER_CONFIG, "chat_template": CHATML})
    for generation in (4, 5):  # both spellings must mean the same model
        if (other := folder / f"config.transformers{generation}.json").exists():
            check_same_model(folder, other)
    return folder, bpe


def check_same_model(folder, other):
    ids, main = torch.tensor([[5, 9, 70, 33, 8, 100, 41, 77, 8, 9, 10, 11]]), folder / "config.json"
    kept, answers = main.read_text(), []
    for text in (kept, other.read_text()):
        main.write_text(text)
        answers.append(load(folder)(input_ids=ids).logits)
    main.write_text(kept)
    assert torch.equal(*answers), f"{folder.name}: the two config files mean different models"


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def make_adapter(folder, base, kind, seed):
    arguments, dtype = KINDS[kind]
    save_adapter(load(base), folder / kind, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **arguments), seed, dtype)


def save_adapter(model, folder, config, seed, dtype="float32"):
    """A PEFT adapter with random A and B, both large enough to move the logits."""
    generator = torch.Generator().manual_seed(seed)
    lora = get_peft_model(model, config)
    lora.peft_config["default"].base_model_name_or_path = f"tiny-{Path(model.name_or_path).name}"
    with torch.no_grad():
        for key, p in sorted(lora.named_parameters()):
            if "lora_" in key:
                p.copy_(torch.randn(p.shape, generator=generator) * (0.12 if "lora_A" in key or "embedding_A" in key else 0.10))
    lora.save_pretrained(fresh(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    if dtype != "float32":
        weights = load_file(folder / "adapter_model.safetensors")
        save_file({k: v.to(getattr(torch, dtype)) for k, v in weights.items()}, folder / "adapter_model.safetensors",
                  metadata={"format": "pt"})
    settings = json.loads((folder / "adapter_config.json").read_text())
    if isinstance(settings["target_modules"], list):
        settings["target_modules"].sort()
    write_json(folder / "adapter_config.json", settings)


def prompts(bpe, seed, length):
    """Pieces of the corpus, as ids, without end."""
    rng, ids = random.Random(seed), bpe.encode(CORPUS).ids
    while True:
        start = rng.randrange(len(ids) - length)
        yield ids[start:start + length]


def record_all(name, folder, bpe, seed):
    book, model = Book(), load(folder)
    shared = []
    for i, length in enumerate((11, 20, 40)):
        prompt, *answer = pick_case(model, prompts(bpe, seed + i, length))
        book.add(f"base.{i}", prompt, *answer, adapter=None)
        shared.append((prompt, answer[0]))
    for j, adapter in enumerate(ADAPTERS[name]):
        tuned = PeftModel.from_pretrained(load(folder), folder / "adapters" / adapter).eval()
        for i, length in enumerate((12, 22)):
            prompt, *answer = pick_case(tuned, prompts(bpe, seed + 10 * j + 100 + i, length))
            book.add(f"{adapter}.{i}", prompt, *answer, adapter=adapter)
        for prompt, plain in shared[:2]:
            moved = (record(tuned, prompt, 0)[0] - plain).abs().max().item()
            assert moved > 0.5, f"{name}/{adapter} moves the logits by {moved:.2f} only"
    book.write(folder)
    spread = [round(t.std().item(), 2) for t in book.tensors.values()]
    print(f"{name}: {len(book.cases)} cases, logit std {min(spread)}-{max(spread)}, least margin {min(c['least_margin'] for c in book.cases)}")


def make(names=tuple(BASES)):
    for i, name in [(i, name) for i, name in enumerate(BASES) if name in names]:
        folder, bpe = make_base(name, seed=1000 + i)
        for j, kind in enumerate(ADAPTERS[name]):
            make_adapter(folder / "adapters", folder, kind, seed=2000 + 100 * i + j)
        record_all(name, folder, bpe, seed=3000 + 1000 * i)

"""GGUF files of tiny models, what their dequantised weights answer, and what their tokenizers make of texts.

Weights are written as llama.cpp's converter does it: rows of q and k permuted for `llama`, not for `qwen2` and `qwen3`; norms and biases
in f32. The answers come from the file itself: read back, dequantised by the gguf package, run by transformers in float32.
"""

import json
import math

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from bases import SMALL, load, prompts, rope
from tiny import CHATML, CORPUS, HERE, Book, byte_level_bpe, fresh, pick_case, randomise, write_json

ROOT = HERE / "gguf"
NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
TO_HF = {v: k for k, v in NAMES.items()} , {v: k for k, v in TOP.items()}
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6

# file: (HF base or "wide", type of the matrices)
FILES = {
    **{f"llama-{q.name.lower()}": ("llama_tied", q) for q in (Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1)},
    **{f"wide-{q.name.lower()}": ("wide", q) for q in (Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K)},
    "llama31-q8_0": ("llama31", Q.Q8_0), "linear-q8_0": ("llama_linear", Q.Q8_0), "qwen2-q8_0": ("qwen2", Q.Q8_0), "qwen3-q8_0": ("qwen3", Q.Q8_0),
    "spm-q8_0": ("spm", Q.Q8_0),
}
PRE = {"llama_tied": "smollm", "wide": "smollm", "llama31": "llama-bpe", "llama_linear": "gpt-2", "qwen2": "qwen2", "qwen3": "qwen2"}
WIDE = LlamaConfig(**{**SMALL, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 8, "vocab_size": 272},
                   num_key_value_heads=1, tie_word_embeddings=True, rms_norm_eps=1e-5, rope_parameters=rope(10000.0))
SPM = LlamaConfig(**{**SMALL, "vocab_size": 480, "num_hidden_layers": 1, "pad_token_id": None}, num_key_value_heads=4, tie_word_embeddings=False,
                  rms_norm_eps=1e-5, rope_parameters=rope(10000.0))

TEXTS = [
    "Hello World!", "", " ", "  two  spaces ", "It's what they'd've said, isn't it?", "IT'S LOUD AND WE'LL HEAR", "On 12 May 1987 it was 1234567 to 89.",
    "def total(items):\n    return sum(item.price for item in items)\n", "line one\n\n\nline four\r\n\tindented", "größere Verspätungen nach Köln; crème brûlée",
    "São Paulo, Łódź, Malmö", "日本語と한국어 и русский", "a😀b 👩‍🚀", "price: $5.00, €7.50 (25% less)...!?", "x=1;y<=2&&z!=3", "½ ² ٣ Ⅷ",
    "<|im_start|>user\nHi<|im_end|>\n", "ends in newline\n", "\n", "tab\tseparated\tvalues",
]


def permute(w, heads):
    """Rotary halves of each head → rotary pairs side by side."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def gguf_name(name):
    if name in TOP:
        return TOP[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def hf_name(name):
    if name in TO_HF[1]:
        return TO_HF[1][name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{TO_HF[0][part]}.{kind}"


def heads_of(config, name):
    return {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2] if "blk" in name else "")


# Where d (and dmin) lie in a block of 256, as halves
SCALES = {Q.Q2_K: (80, 82), Q.Q3_K: (108, None), Q.Q4_K: (0, 2), Q.Q5_K: (0, 2), Q.Q6_K: (208, None)}


def random_blocks(shape, kind, rng):
    """Random bits in every field of a K-quant, with d and dmin set so that the weights have the usual size and no bias.

    The gguf package reads these types and does not write them; random bits also reach values that a quantiser seldom picks.
    """
    size, bytes_each = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (shape[0] * shape[1] // size, bytes_each), dtype=np.uint8)
    at_d, at_min = SCALES[kind]

    def unit(d, low):
        trial = blocks.copy()
        trial[:, at_d:at_d + 2] = np.float16(d).reshape(1).view(np.uint8)
        if at_min is not None:
            trial[:, at_min:at_min + 2] = np.float16(low).reshape(1).view(np.uint8)
        return gguf.dequantize(trial, kind)

    high = unit(1, 0)
    balance = 0.0 if at_min is None else float(high.mean() / -unit(0, 1).mean())
    size_of_one = 1.2 / math.sqrt(shape[1]) / float((unit(1, balance) if at_min is not None else high).std())
    d = (size_of_one * rng.uniform(0.5, 1.5, len(blocks))).astype(np.float16)
    blocks[:, at_d:at_d + 2] = d.view(np.uint8).reshape(-1, 2)
    if at_min is not None:
        blocks[:, at_min:at_min + 2] = (d.astype(np.float32) * balance).astype(np.float16).view(np.uint8).reshape(-1, 2)
    return blocks.reshape(shape[0], -1)


def rope_factors(config):
    """What `rope_freqs.weight` holds for llama3 scaling: divisors of the plain frequencies."""
    p = config.rope_parameters
    head = config.head_dim
    plain = p["rope_theta"] ** -(np.arange(0, head, 2, dtype=np.float64) / head)
    wavelength = 2 * math.pi / plain
    smooth = (p["original_max_position_embeddings"] / wavelength - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"])
    smooth = np.clip(smooth, 0, 1)
    return (1 / ((1 - smooth) / p["factor"] + smooth)).astype(np.float32)


def spm_tokenizer(vocab):
    """A SentencePiece-like BPE with byte fallback: pieces, and the Hugging Face tokenizer they amount to."""
    spaced = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained = Tokenizer(models.BPE())
    trained.normalizer = spaced
    # Pieces stay within a word; a piece may begin with the mark of the space before it, as SentencePiece has it.
    words = [f"▁{w}" for line in CORPUS.split("\n") for w in line.split()]
    trained.normalizer = None
    trained.train_from_iterator(words, trainers.BpeTrainer(vocab_size=vocab - 259 - 1, show_progress=False))
    by_id = sorted(trained.get_vocab().items(), key=lambda x: x[1])
    merged = [t for t, _ in by_id if len(t) > 1] + ["▁▁"]
    single = [t for t, _ in by_id if len(t) == 1]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + merged + single
    tokens = tokens[:vocab]
    assert len(tokens) == vocab, len(tokens)
    rank = {t: i for i, t in enumerate(tokens)}
    scores = [0.0] * 259 + [-float(i) for i in range(vocab - 259)]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * (vocab - 259)
    # every way to put a piece together from two others, best piece first: what merging by score does
    merges = [(t[:cut], t[cut:]) for t in tokens[259:] for cut in range(1, len(t)) if rank.get(t[:cut], 0) > 258 and rank.get(t[cut:], 0) > 258]
    reference = Tokenizer(models.BPE(vocab=rank, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    reference.normalizer = spaced
    reference.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    reference.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in tokens[:3]])
    reference.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return reference, tokens, scores, types


def add_tokenizer(writer, tokenizer, pre, add_bos):
    vocab = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda x: x[1])
    model = json.loads(tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([t for t, _ in vocab])
    writer.add_token_types([CONTROL if i < 3 else NORMAL for _, i in vocab])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(add_bos)
    writer.add_chat_template(CHATML)


def add_spm(writer, tokens, scores, types):
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([t.encode() for t in tokens])
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}")


def add_shape(writer, config, name):
    writer.add_name(f"tiny {name}")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if (head := getattr(config, "head_dim", None)) and config.model_type == "qwen3":
        writer.add_key_length(head)
        writer.add_value_length(head)
    if config.model_type == "llama":
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_vocab_size(config.vocab_size)
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])


def write_file(file, model, kind, vocabulary):
    config, rng = model.config, np.random.default_rng(7)
    writer = gguf.GGUFWriter(ROOT / f"{file}.gguf", config.model_type)
    add_shape(writer, config, file)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    vocabulary(writer)
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_factors(config))
    for name, p in sorted(model.state_dict().items()):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name, w = gguf_name(name), p.float().numpy()
        if config.model_type == "llama" and (heads := heads_of(config, name)):
            w = permute(w, heads)
        if w.ndim == 1 or kind == Q.F32:
            writer.add_tensor(name, np.ascontiguousarray(w))
        elif kind in SCALES:
            writer.add_tensor(name, random_blocks(w.shape, kind, rng), raw_dtype=kind)
        else:
            writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(w), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_back(file, model):
    """The model with the file's own weights."""
    config, weights = model.config, {}
    for t in gguf.GGUFReader(ROOT / f"{file}.gguf").tensors:
        if t.name == "rope_freqs.weight":
            continue
        w = gguf.dequantize(t.data, t.tensor_type).astype(np.float32).reshape([int(n) for n in t.shape][::-1])
        if config.model_type == "llama" and (heads := heads_of(config, t.name)):
            w = unpermute(w, heads)
        weights[hf_name(t.name)] = torch.from_numpy(np.ascontiguousarray(w))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    return model.eval()


def record_tokenizers(tokenizers):
    rows = []
    for file, tokenizer in tokenizers.items():
        cases = []
        for text in TEXTS:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            cases.append({"text": text, "ids": ids, "with_special": tokenizer.encode(text).ids,
                          "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
        rows.append({"file": f"{file}.gguf", "cases": cases})
    (ROOT / "tokenizers.json").write_text("[\n" + ",\n".join(
        '{"file": "%s", "cases": [\n%s\n]}' % (r["file"], ",\n".join(json.dumps(c, ensure_ascii=False) for c in r["cases"])) for r in rows) + "\n]\n")


def begin_with_bos(tokenizer):
    tokenizer.post_processor = processors.TemplateProcessing(single="<|im_start|> $A", pair="<|im_start|> $A <|im_start|> $B",
                                                             special_tokens=[("<|im_start|>", 1)])
    return tokenizer


def make():
    fresh(ROOT)
    book, tokenizers = Book(), {}
    for file, (base, kind) in FILES.items():
        if base == "spm":
            tokenizer, *pieces = spm_tokenizer(SPM.vocab_size)
            model = randomise(LlamaForCausalLM(SPM), seed=51)
            write_file(file, model, kind, lambda w: add_spm(w, *pieces))
        else:
            model = randomise(LlamaForCausalLM(WIDE), seed=50) if base == "wide" else load(HERE / base)
            tokenizer, add_bos = byte_level_bpe(PRE[base], model.config.vocab_size), base == "llama31"
            write_file(file, model, kind, lambda w: add_tokenizer(w, tokenizer, PRE[base], add_bos))
            if add_bos:
                begin_with_bos(tokenizer)
        if file in ("llama-f32", "wide-q4_k", "llama31-q8_0", "linear-q8_0", "qwen2-q8_0", "spm-q8_0"):
            tokenizers[file] = tokenizer
        model = read_back(file, model)
        model.config._attn_implementation = "eager"
        for i, length in enumerate((10, 21)):
            prompt, *answer = pick_case(model, prompts(tokenizer, 70 + i, length))
            book.add(f"{file}.{i}", prompt, *answer, file=f"{file}.gguf")
    for pre in ("smollm", "llama-bpe", "qwen2", "gpt-2"):  # vocabularies with more merges, no weights
        tokenizer = byte_level_bpe(pre, 700)
        writer = gguf.GGUFWriter(ROOT / f"vocabulary-{pre}.gguf", "llama")
        add_shape(writer, LlamaConfig(**{**SMALL, "vocab_size": 700}, rope_parameters=rope(10000.0)), f"vocabulary {pre}")
        add_tokenizer(writer, tokenizer, pre, False)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        tokenizers[f"vocabulary-{pre}"] = tokenizer
    book.write(ROOT)
    record_tokenizers(tokenizers)
    print(f"gguf: {len(book.cases)} cases, least margin {min(c['least_margin'] for c in book.cases)}, "
          f"logit std {min(t.std().item() for t in book.tensors.values()):.2f}-{max(t.std().item() for t in book.tensors.values()):.2f}")

"""Tiny encoders and classifiers in Hugging Face form: configs, tokenizers, weights, sentence-transformers' files."""

import json
import math
from collections import Counter
from dataclasses import dataclass, field

import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bases import SMALL, generation_4, rope
from tiny import CORPUS, HERE, byte_level_bpe, fresh, write_json

NEWS = ["not newsworthy", "newsworthy", "very newsworthy"]
NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
WIDTH = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64)
DISTILBERT = dict(dim=32, n_layers=3, n_heads=2, hidden_dim=64)
# XLM-RoBERTa's and RoBERTa's tables have two rows more than they have places: positions begin after the padding's.
TABLES = dict(vocab_size=320, max_position_embeddings=160)
ROBERTA = dict(vocab_size=320, max_position_embeddings=162, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2)
MODERNBERT = dict(
    vocab_size=320, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, local_attention=8,
    max_position_embeddings=160, global_attn_every_n_layers=3, pad_token_id=0, cls_token_id=1, sep_token_id=2,
    bos_token_id=1, eos_token_id=2)
DECODER = {**SMALL, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}


def named(names):
    return dict(id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})


@dataclass
class Base:
    """One base: `head` is what transformers' auto classes call it, None for a model without one."""

    kind: type
    config: object
    tokenizer: str
    head: str | None = None
    dtype: str = "float32"
    generation: int = 5
    files: dict = field(default_factory=dict)
    pooling: str = "mean"


def sentence_transformers(pooling, longest, prompts, normalize=True):
    """What sentence-transformers keeps beside a model."""
    steps = ["", "1_Pooling"] + ["2_Normalize"] * normalize
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = [dict(idx=i, name=str(i), path=path, type=f"sentence_transformers.models.{kinds[i]}") for i, path in enumerate(steps)]
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    return {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": 32, **{f"pooling_mode_{mode}": mode == pooling for mode in modes}, "include_prompt": True},
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    }


BASES = {
    "bert_seqcls": Base(hf.BertForSequenceClassification, hf.BertConfig(**WIDTH, **TABLES, **named(NEWS)), "wordpiece", "sequence"),
    "bert_embed": Base(hf.BertModel, hf.BertConfig(**WIDTH, **TABLES, hidden_act="gelu_new"), "wordpiece-padded", generation=4,
                       files=sentence_transformers("mean_tokens", 128, {})),
    "bert_tokcls": Base(hf.BertForTokenClassification, hf.BertConfig(**WIDTH, **TABLES, **named(NAMES)), "wordpiece-cased", "token"),
    "bert_mlm": Base(hf.BertForMaskedLM, hf.BertConfig(**WIDTH, **TABLES), "wordpiece", dtype="bfloat16", generation=4),
    "cross_encoder": Base(hf.BertForSequenceClassification, hf.BertConfig(**WIDTH, **TABLES, **named(["LABEL_0"])), "wordpiece", "sequence"),
    "roberta_seqcls": Base(hf.RobertaForSequenceClassification, hf.RobertaConfig(**WIDTH, **ROBERTA, **named(NEWS)), "roberta", "sequence"),
    "roberta_mlm": Base(hf.RobertaForMaskedLM, hf.RobertaConfig(**WIDTH, **ROBERTA), "roberta", generation=4),
    "xlm_roberta_mlm": Base(hf.XLMRobertaForMaskedLM, hf.XLMRobertaConfig(**WIDTH, **ROBERTA), "unigram", dtype="float16"),
    "distilbert_seqcls": Base(
        hf.DistilBertForSequenceClassification,
        hf.DistilBertConfig(**DISTILBERT, **TABLES, **named(["sport", "money", "weather", "war"]), problem_type="multi_label_classification"),
        "wordpiece-cased", "sequence"),
    "distilbert_mlm": Base(hf.DistilBertForMaskedLM, hf.DistilBertConfig(**DISTILBERT, **TABLES, activation="relu"), "wordpiece", generation=4),
    "modernbert_seqcls": Base(
        hf.ModernBertForSequenceClassification, hf.ModernBertConfig(**MODERNBERT, **named(NEWS), classifier_pooling="mean"), "modernbert", "sequence"),
    "modernbert_mlm": Base(
        hf.ModernBertForMaskedLM, hf.ModernBertConfig(
            **MODERNBERT, attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True, classifier_pooling="cls"),
        "modernbert", dtype="bfloat16", generation=4),
    "modernbert_embed": Base(
        hf.ModernBertModel, hf.ModernBertConfig(**MODERNBERT), "modernbert", dtype="float16", pooling="cls",
        files=sentence_transformers("cls_token", 160, {"query": "search_query: ", "document": "search_document: "}, normalize=False)),
    "llama_seqcls": Base(
        hf.LlamaForSequenceClassification, hf.LlamaConfig(**DECODER, **named(NEWS), rope_parameters=rope(10000.0)),
        "decoder", "sequence", pooling="last"),
    "qwen2_seqcls": Base(
        hf.Qwen2ForSequenceClassification, hf.Qwen2Config(
            **DECODER, **named(["bad", "good"]), use_sliding_window=False, rope_parameters=rope(50000.0)),
        "decoder", "sequence", dtype="bfloat16", generation=4, pooling="last"),
}
AUTO = {"sequence": hf.AutoModelForSequenceClassification, "token": hf.AutoModelForTokenClassification, None: hf.AutoModel}


def load(folder, head, labels=None):
    """The checkpoint under any head; a head of another size is drawn anew."""
    settings = {} if labels is None else dict(num_labels=labels, ignore_mismatched_sizes=True)
    return AUTO[head].from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **settings).eval()


@torch.no_grad()
def randomise(model, seed):
    """Weights large enough that every part of the model shows in what it says."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        noise, norm = torch.randn(p.shape, generator=generator), "norm" in name.lower()
        if norm and name.endswith("weight"):
            p.copy_(1.0 + 0.25 * noise.clamp(-2, 2))
        elif p.dim() == 1:
            p.copy_(noise * 0.3)
        elif "embed" in name:
            p.copy_(noise * 0.5)
        else:
            p.copy_(noise * 1.2 / math.sqrt(p.shape[1]))
    return model


def common(made, inner=""):
    """Letters, and the commonest pieces of the corpus' words: the library's own trainers make others every time."""
    words = [word for word, _ in made.pre_tokenizer.pre_tokenize_str(made.normalizer.normalize_str(CORPUS))]
    pieces = Counter((inner if start else "") + word[start:end]
                     for word in words for start in range(len(word)) for end in range(start + 1, len(word) + 1))
    order = {piece: (-pieces[piece] * len(piece), piece) for piece in pieces}
    letters = [piece for piece in sorted(pieces) if len(piece.removeprefix(inner)) == 1]
    return {piece: pieces[piece] for piece in letters + sorted(pieces.keys() - set(letters), key=order.get)}


def wordpiece(lowercase):
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.model = models.WordPiece({token: i for i, token in enumerate([*specials, *common(made, "##")][:320])}, unk_token="[UNK]")
    made.add_special_tokens(specials)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return made


def byte_pieces(specials):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    specials = [AddedToken(token, special=True, normalized=False) for token in specials]
    made.train_from_iterator([CORPUS], trainers.BpeTrainer(
        vocab_size=320, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return made


def unigram():
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = list(common(made).items())[:295]
    total = sum(count for _, count in pieces)
    made.model = models.Unigram(
        [*((token, 0.0) for token in specials), *((piece, math.log(count / total)) for piece, count in pieces)], unk_id=3, byte_fallback=False)
    made.add_special_tokens([*specials, "<mask>"])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return made


def tokenizer(kind):
    """The tokenizer, and what tokenizer_config.json says of it."""
    bert = dict(tokenizer_class="BertTokenizer", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]",
                mask_token="[MASK]", do_lower_case=kind != "wordpiece-cased")
    if kind.startswith("wordpiece"):
        made = wordpiece(lowercase=kind != "wordpiece-cased")
        if kind == "wordpiece-padded":  # as sentence-transformers' models have it: neither is meant for a server
            made.enable_truncation(24)
            made.enable_padding(length=24)
        return made, bert
    if kind == "modernbert":
        made = byte_pieces(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
        return made, {**bert, "tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    if kind == "decoder":
        return byte_level_bpe("smollm", 320), dict(tokenizer_class="PreTrainedTokenizerFast", pad_token="<|endoftext|>")
    roberta = dict(bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")
    if kind == "unigram":
        return unigram(), {**roberta, "tokenizer_class": "PreTrainedTokenizerFast"}
    made = byte_pieces(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    return made, {**roberta, "tokenizer_class": "RobertaTokenizer", "add_prefix_space": False}


def older(config):
    """config.json as transformers 4 wrote it: the same meaning under the older names."""
    old = dict(config)
    if old["model_type"] in ("llama", "qwen2"):
        return generation_4(old)
    if old["model_type"] == "modernbert":
        angles = old.pop("rope_parameters")
        old |= dict(global_rope_theta=angles["full_attention"]["rope_theta"], local_rope_theta=angles["sliding_attention"]["rope_theta"],
                    global_attn_every_n_layers=MODERNBERT["global_attn_every_n_layers"], reference_compile=None)
        old.pop("layer_types", None)
    if old["model_type"] in ("bert", "roberta", "xlm-roberta"):
        old |= dict(position_embedding_type="absolute", gradient_checkpointing=False)
    old["torch_dtype"] = old.pop("dtype")
    return dict(sorted({**old, "transformers_version": "4.46.0"}.items()))


def make_base(name, seed):
    base, folder = BASES[name], fresh(HERE / name)
    randomise(base.kind(base.config), seed).to(getattr(torch, base.dtype)).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    new = json.loads((folder / "config.json").read_text())
    spellings = {5: new, 4: older(new)}
    write_json(folder / "config.json", spellings[base.generation])
    other = folder / f"config.transformers{9 - base.generation}.json"
    write_json(other, spellings[9 - base.generation])
    made, says = tokenizer(base.tokenizer)
    made.save(str(folder / "tokenizer.json"))
    longest = 256 if base.tokenizer == "decoder" else 160
    write_json(folder / "tokenizer_config.json", {**says, "model_max_length": longest, "clean_up_tokenization_spaces": False})
    for path, value in base.files.items():
        write_json(folder / path, value)
    made.no_truncation()
    made.no_padding()
    check_spellings(folder, other, base.head)
    if name.startswith("modernbert"):
        check_window(folder)
    return folder, made


def check_spellings(folder, other, head):
    """Both config files must mean the same model."""
    ids, main = torch.tensor([[2, 9, 70, 33, 8, 100, 41, 77, 8, 9, 10, 3]]), folder / "config.json"
    kept, answers = main.read_text(), []
    for text in (kept, other.read_text()):
        main.write_text(text)
        answers.append(load(folder, head)(input_ids=ids)[0])
    main.write_text(kept)
    assert torch.equal(*answers), f"{folder.name}: the two config files mean different models"


def check_window(folder):
    """A program that looks past the window must be found out."""
    ids = torch.tensor([[2, *range(40, 80), 3]])
    answers = [hf.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **window).eval()(input_ids=ids)[0]
               for window in ({}, {"local_attention": 10}, {"local_attention": 400})]
    for other in answers[1:]:
        off = (answers[0] - other).abs().max().item()
        assert off > 0.1, f"{folder.name}: another window is off by {off:.3f} only"

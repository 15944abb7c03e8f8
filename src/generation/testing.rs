//! Tokenizers of both great families for this room's tests.
use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

/// Characters stand for bytes; no leading space is dropped.
pub(super) fn byte_level() -> Tokenizer {
    let file = include_bytes!("../../tests/golden/llama/tokenizer.json");
    Tokenizer::from_bytes(file).expect("a tokenizer")
}

/// `\u{2581}` stands for a space, bytes without a piece for themselves; the first space is dropped.
/// `<s>` is 0, `</s>` 1, bytes begin at 2.
pub(super) fn sentence_piece() -> Tokenizer {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    let mut pieces: Vec<String> = vec!["<s>".into(), "</s>".into()];
    pieces.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    pieces.extend(["\u{2581}", "a", "b", "é", "\u{2581}a", "\u{2581}b", "ab"].map(String::from));
    let vocab: Map<String, Value> = pieces.into_iter().zip((0u32..).map(Value::from)).collect();
    from_json(&json!({
        "version": "1.0",
        "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "byte_fallback": true, "fuse_unk": true, "vocab": vocab,
            "merges": [["\u{2581}", "a"], ["\u{2581}", "b"], ["a", "b"]]},
    }))
}

/// Words, with the given decoder.
pub(super) fn words(decoder: &Value) -> Tokenizer {
    let vocab = json!({"one": 0, "two": 1, "\u{2581}three": 2});
    from_json(&json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "decoder": decoder,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "one"},
    }))
}

/// BERT's: pieces of words, `[CLS]` before a text and `[SEP]` behind it, the second of two texts of type 1.
pub(super) fn word_piece() -> Tokenizer {
    from_json(&word_piece_json())
}

/// The file of it.
pub(super) fn word_piece_json() -> Value {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    let words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "rat",
        "##ing",
        "news",
        "##worthy",
        "isn",
        "'",
        "t",
        "it",
        ",",
        "?",
        ".",
        "anna",
        "lives",
        "in",
        "san",
        "francisco",
        "é",
    ];
    let vocab: Map<String, Value> =
        words.iter().map(ToString::to_string).zip((0u32..).map(Value::from)).collect();
    let part = |kind: &str, id: &str, type_id: u32| json!({kind: {"id": id, "type_id": type_id}});
    let [cls, sep] = [("[CLS]", 2), ("[SEP]", 3)]
        .map(|(token, id)| json!({"id": token, "ids": [id], "tokens": [token]}));
    let single = [
        part("SpecialToken", "[CLS]", 0),
        part("Sequence", "A", 0),
        part("SpecialToken", "[SEP]", 0),
    ];
    let second = [part("Sequence", "B", 1), part("SpecialToken", "[SEP]", 1)];
    let pair = [&single[..], &second].concat();
    json!({
        "version": "1.0",
        "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"),
            special(3, "[SEP]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": false, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": single,
            "pair": pair, "special_tokens": {"[CLS]": cls, "[SEP]": sep}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

fn from_json(json: &Value) -> Tokenizer {
    Tokenizer::from_bytes(json.to_string()).expect("a tokenizer")
}

//! Tokenizers against the Hugging Face ones they were written from, and damaged files of every kind.
use super::{checkpoint::GgufCheckpoint, testing, text};
use crate::{
    gguf::GgufFile,
    model::{ModelError, TextAssets, checkpoint::Checkpoint},
};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;
use std::{fs, path::PathBuf};

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf").join(name)
}

fn assets(name: &str) -> TextAssets {
    let bytes = fs::read(golden(name)).unwrap().into();
    text::read(&GgufFile::parse(name.to_owned(), bytes).unwrap()).unwrap()
}

/// Whatever can be read of a file's bytes, all of it.
fn read_all(bytes: Vec<u8>) -> Result<(), ModelError> {
    let file = GgufFile::parse("test.gguf".into(), Bytes::from(bytes))?;
    let checkpoint = GgufCheckpoint::new(file)?;
    checkpoint.text()?;
    for name in checkpoint.names() {
        checkpoint.tensor(&name)?;
    }
    Ok(())
}

#[test]
fn texts_become_the_tokens_of_the_tokenizer_the_header_was_written_from() {
    let rows: Value =
        serde_json::from_slice(&fs::read(golden("tokenizers.json")).unwrap()).unwrap();
    for row in rows.as_array().unwrap() {
        let file = row["file"].as_str().unwrap();
        let tokenizer = assets(file).tokenizer;
        for case in row["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids = |special| {
                let encoding = tokenizer.encode(text, special).unwrap();
                Value::from(encoding.get_ids().to_vec())
            };
            assert_eq!(ids(false), case["ids"], "{file}: {text:?}");
            assert_eq!(ids(true), case["with_special"], "{file}: {text:?}, with special tokens");
            let plain: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let decoded = tokenizer.decode(&plain, false).unwrap();
            assert_eq!(decoded, case["decoded"], "{file}: {text:?}");
        }
    }
}

#[test]
fn the_header_names_special_tokens_and_the_template() {
    let text = assets("llama31-q8_0.gguf");
    assert_eq!(text.special_tokens["bos_token"], "<|im_start|>");
    assert_eq!(text.special_tokens["eos_token"], "<|im_end|>");
    assert_eq!(text.eos_ids, [0, 2]);
    assert_eq!(text.add_bos, Some(true));
    assert!(text.chat_template.unwrap().contains("im_start"));
    assert_eq!(assets("llama-f32.gguf").add_bos, Some(false));
}

#[test]
fn a_vocabulary_alone_is_no_model() {
    let error = GgufCheckpoint::open(&golden("vocabulary-smollm.gguf")).err().unwrap().to_string();
    assert!(error.contains("token_embd.weight"), "{error}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = fs::read(golden("spm-q8_0.gguf")).unwrap();
    read_all(whole.clone()).unwrap();
    for len in (0..whole.len()).step_by(97).chain([whole.len() - 32]) {
        let error = read_all(whole[..len].to_vec()).unwrap_err().to_string();
        assert!(error.starts_with("test.gguf: "), "{error}");
    }
}

#[test]
fn absurd_counts_ask_for_no_memory() {
    let header = |tensors: u64, entries: u64| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(entries.to_le_bytes());
        bytes
    };
    let mut text = header(0, 1);
    text.extend(u64::MAX.to_le_bytes());
    let mut array = header(0, 1);
    array.extend(1_u64.to_le_bytes());
    array.extend(b"a\x09\0\0\0\x00\0\0\0");
    array.extend((1_u64 << 60).to_le_bytes());
    for bytes in [header(u64::MAX, 0), header(0, u64::MAX), text, array] {
        let mut bytes = bytes;
        bytes.extend([0; 64]);
        let error = read_all(bytes).unwrap_err().to_string();
        assert!(error.contains("more than its"), "{error}");
    }
}

#[test]
fn what_is_no_such_file_is_said() {
    let refused = |bytes: &[u8], word: &str| {
        let error = read_all(bytes.to_vec()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(b"", "not a GGUF file");
    refused(b"PK\x03\x04 some archive", "not a GGUF file");
    refused(b"GGUF\0\0\0\x03", "big-endian");
    refused(b"GGUF\x01\0\0\0", "version 1");
}

/// A key's value in a file, replaced by another of the same length.
fn with_value(file: &str, key: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = fs::read(golden(file)).unwrap();
    let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
    let value = at + key.len() + 4;
    assert_eq!(&bytes[value..value + from.len()], from, "{key}");
    bytes[value..value + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let cases = [
        ("tokenizer.ggml.pre", testing::text("smollm"), testing::text("viking"), "viking"),
        ("general.architecture", testing::text("llama"), testing::text("bloom"), "bloom"),
        ("tokenizer.ggml.model", testing::text("gpt2"), testing::text("bert"), "bert"),
        ("tokenizer.ggml.bos_token_id", vec![1, 0, 0, 0], vec![1, 0, 1, 0], "bos_token_id"),
        ("llama.rope.dimension_count", vec![16, 0, 0, 0], vec![8, 0, 0, 0], "rope.dimension_count"),
        ("llama.block_count", vec![3, 0, 0, 0], vec![0, 0, 0, 0], "llama.block_count"),
    ];
    for (key, from, to, word) in cases {
        let bytes = with_value("llama-q4_0.gguf", key, &from, &to);
        let error = read_all(bytes).unwrap_err().to_string();
        assert!(error.contains(word), "{key}: {error}");
    }
}

#[test]
fn a_key_this_build_does_not_know_is_refused() {
    let mut bytes = fs::read(golden("llama-q4_0.gguf")).unwrap();
    let key = b"llama.vocab_size";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    bytes[at..at + key.len()].copy_from_slice(b"llama.logit_tilt");
    let error = read_all(bytes).unwrap_err().to_string();
    assert!(error.contains("`llama.logit_tilt`"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Damage is an error or another value, and never a panic.
    #[test]
    fn damaged_headers_never_panic(
        damage in prop::collection::vec((0..17_000_usize, any::<u8>()), 1..6),
        near_the_start: bool,
    ) {
        let mut bytes = fs::read(golden("spm-q8_0.gguf")).unwrap();
        for (at, byte) in damage {
            bytes[if near_the_start { at % 900 } else { at }] = byte;
        }
        let _ = read_all(bytes);
    }
}

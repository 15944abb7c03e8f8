//! The text side of a file: tokenizer, chat template, special tokens.
use super::tokenizer::{Role, Vocabulary, token_id};
use crate::{
    gguf::{GgufError, GgufFile},
    model::{SamplingDefaults, TextAssets},
};
use std::collections::BTreeMap;

/// The header's ids → the names that templates use.
const SPECIAL: &[(&str, &str)] = &[
    ("bos_token_id", "bos_token"),
    ("eos_token_id", "eos_token"),
    ("unknown_token_id", "unk_token"),
    ("padding_token_id", "pad_token"),
];

/// Ids that end an answer.
const ENDS: &[&str] = &["eos_token_id", "eot_token_id", "eom_token_id"];

/// Control tokens that end an answer whether or not the header says so: converters write one id, chats end with
/// another.
const END_NAMES: &[&str] = &[
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
];

/// Reads all of it.
pub(super) fn read(file: &GgufFile) -> Result<TextAssets, GgufError> {
    let (vocabulary, tokenizer) = Vocabulary::read(file)?;
    Ok(TextAssets {
        tokenizer,
        chat_template: file.text("tokenizer.chat_template")?.map(str::to_owned),
        special_tokens: special_tokens(file, &vocabulary)?,
        eos_ids: eos_ids(file, &vocabulary)?,
        add_bos: Some(vocabulary.leading.is_some()),
        sampling: SamplingDefaults::default(),
    })
}

fn special_tokens(
    file: &GgufFile,
    vocabulary: &Vocabulary<'_>,
) -> Result<BTreeMap<String, String>, GgufError> {
    let mut tokens = BTreeMap::new();
    for (key, name) in SPECIAL {
        if let Some(id) = token_id(file, key, vocabulary.tokens.len())? {
            tokens.insert((*name).to_owned(), vocabulary.tokens[id as usize].to_owned());
        }
    }
    Ok(tokens)
}

fn eos_ids(file: &GgufFile, vocabulary: &Vocabulary<'_>) -> Result<Vec<u32>, GgufError> {
    let listed = ENDS.iter().map(|key| token_id(file, key, vocabulary.tokens.len()));
    let mut ids: Vec<u32> = listed.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let named = vocabulary.tokens.iter().zip(&vocabulary.roles).enumerate();
    ids.extend(
        named
            .filter(|(_, (token, role))| **role == Role::Control && END_NAMES.contains(*token))
            .map(|(id, _)| id as u32),
    );
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

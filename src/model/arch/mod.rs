//! `config.json` → [`Spec`]. A new architecture is a file here and lines in [`ARCHITECTURES`].
//!
//! Knows the spellings of both generations of `transformers`. Knows no tensors.
mod bert;
mod common;
mod distilbert;
mod encoder;
mod fields;
mod labels;
mod llama;
mod mistral;
mod modernbert;
mod phi3;
mod qwen2;
mod qwen3;
mod read;
mod roberta;
mod rope;
#[cfg(test)]
mod tests;

pub(crate) use read::read_spec;

use super::{
    ModelError,
    spec::{ArchSpec, EncoderSpec, Spec},
};
use crate::lora::HeadKind;
use fields::Fields;

/// Reads the fields a family knows; what it leaves is refused by name.
#[derive(Clone, Copy)]
enum Family {
    /// Of decoders.
    Decoder(fn(&mut Fields) -> Result<ArchSpec, ModelError>),
    /// Of encoders.
    Encoder(fn(&mut Fields) -> Result<EncoderSpec, ModelError>),
}

/// What a checkpoint has on top of its last layer.
#[derive(Clone, Copy)]
enum Top {
    /// Nothing.
    Bare,
    /// A head over the vocabulary. On an encoder it guesses masked tokens, and is not read.
    Vocabulary,
    /// A head that gives labels.
    Labels(HeadKind),
}

const LLAMA: Family = Family::Decoder(llama::spec);
const MISTRAL: Family = Family::Decoder(mistral::spec);
const PHI3: Family = Family::Decoder(phi3::spec);
const QWEN2: Family = Family::Decoder(qwen2::spec);
const QWEN3: Family = Family::Decoder(qwen3::spec);
const BERT: Family = Family::Encoder(bert::spec);
const ROBERTA: Family = Family::Encoder(roberta::spec);
const DISTILBERT: Family = Family::Encoder(distilbert::spec);
const MODERNBERT: Family = Family::Encoder(modernbert::spec);

const SEQUENCE: Top = Top::Labels(HeadKind::Sequence);
const TOKEN: Top = Top::Labels(HeadKind::Token);

/// `config.json`'s `architectures` → how to read the rest of it, and what the checkpoint has on top.
const ARCHITECTURES: &[(&str, Family, Top)] = &[
    ("LlamaForCausalLM", LLAMA, Top::Vocabulary),
    ("LlamaForSequenceClassification", LLAMA, SEQUENCE),
    ("LlamaModel", LLAMA, Top::Bare),
    ("MistralForCausalLM", MISTRAL, Top::Vocabulary),
    ("MistralForSequenceClassification", MISTRAL, SEQUENCE),
    ("MistralModel", MISTRAL, Top::Bare),
    ("Phi3ForCausalLM", PHI3, Top::Vocabulary),
    ("Phi3ForSequenceClassification", PHI3, SEQUENCE),
    ("Qwen2ForCausalLM", QWEN2, Top::Vocabulary),
    ("Qwen2ForSequenceClassification", QWEN2, SEQUENCE),
    ("Qwen2Model", QWEN2, Top::Bare),
    ("Qwen3ForCausalLM", QWEN3, Top::Vocabulary),
    ("Qwen3ForSequenceClassification", QWEN3, SEQUENCE),
    ("Qwen3Model", QWEN3, Top::Bare),
    ("BertModel", BERT, Top::Bare),
    ("BertForMaskedLM", BERT, Top::Vocabulary),
    ("BertForPreTraining", BERT, Top::Vocabulary),
    ("BertForSequenceClassification", BERT, SEQUENCE),
    ("BertForTokenClassification", BERT, TOKEN),
    ("RobertaModel", ROBERTA, Top::Bare),
    ("RobertaForMaskedLM", ROBERTA, Top::Vocabulary),
    ("RobertaForSequenceClassification", ROBERTA, SEQUENCE),
    ("RobertaForTokenClassification", ROBERTA, TOKEN),
    ("XLMRobertaModel", ROBERTA, Top::Bare),
    ("XLMRobertaForMaskedLM", ROBERTA, Top::Vocabulary),
    ("XLMRobertaForSequenceClassification", ROBERTA, SEQUENCE),
    ("XLMRobertaForTokenClassification", ROBERTA, TOKEN),
    ("DistilBertModel", DISTILBERT, Top::Bare),
    ("DistilBertForMaskedLM", DISTILBERT, Top::Vocabulary),
    ("DistilBertForSequenceClassification", DISTILBERT, SEQUENCE),
    ("DistilBertForTokenClassification", DISTILBERT, TOKEN),
    ("ModernBertModel", MODERNBERT, Top::Bare),
    ("ModernBertForMaskedLM", MODERNBERT, Top::Vocabulary),
    ("ModernBertForSequenceClassification", MODERNBERT, SEQUENCE),
    ("ModernBertForTokenClassification", MODERNBERT, TOKEN),
];

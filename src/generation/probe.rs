//! One short answer with a version that no name means yet, beside the base's.
use super::{
    GenerateError, GenerateRequest, Generation, Generator, Priority, Prompt, SamplingOptions,
};
use crate::adapter::AdapterLease;

/// Longest answer of a probe, tokens.
const TOKENS: usize = 16;

/// What a probe's prompt is answered.
#[derive(Debug)]
pub struct Probe {
    /// The base's answer.
    pub base: String,
    /// The answer with the version, or why there is none.
    pub adapter: Result<String, GenerateError>,
}

impl Generator {
    /// Continues `prompt` greedily by up to 16 tokens, by the base alone and with the leased version.
    ///
    /// # Errors
    /// When the base itself gives no answer.
    pub async fn probe(&self, lease: AdapterLease, prompt: &str) -> Result<Probe, GenerateError> {
        let base = self.generate(request(prompt));
        let adapter = self.generate_with(lease, request(prompt));
        let (base, adapter) = futures_util::join!(said(base), said(adapter));
        Ok(Probe { base: base?, adapter })
    }
}

fn request(prompt: &str) -> GenerateRequest {
    let prompt = Prompt::Text { text: prompt.to_owned(), add_special_tokens: true };
    GenerateRequest {
        prompt,
        adapters: Vec::new(),
        sampling: SamplingOptions { temperature: 0.0, ..SamplingOptions::default() },
        bad_words: Vec::new(),
        max_tokens: None,
        default_max_tokens: Some(TOKENS),
        stop: Vec::new(),
        include_stop: false,
        skip_special_tokens: true,
        n: 1,
        truncate_prompt_tokens: None,
        shows_prompt: false,
        cache_salt: None,
        constraint: None,
        priority: Priority::Normal,
    }
}

async fn said(
    started: impl Future<Output = Result<Generation, GenerateError>>,
) -> Result<String, GenerateError> {
    let answers = started.await?.collect().await?;
    Ok(answers.into_iter().map(|answer| answer.text).collect())
}

//! From a request to texts that are read: check, lease, tokenise, submit, finish.
use super::{
    EncodeConfig, EncodeInput, EncodeRequest, Encoded, EncodedText, Truncation,
    plan::{Finish, Part, Plan},
    text::{self, Form, Place, Text},
    values,
    window::{Given, Window},
};
use crate::{
    engine::{AdapterMix, SamplingOptions, SamplingParams},
    generation::{
        GenerateError, Generator, INLINE_BYTES, Priority, ServedAdapter, WeightedAdapter,
        account::{self, Account},
        tokenizer::Tokenizer,
    },
};
use std::{sync::Arc, time::Duration};

/// More numbers are worked on on a blocking thread.
const INLINE_VALUES: usize = 1 << 17;

/// Texts to read, each with its place in the request.
pub(super) struct Texts {
    pub(super) inputs: Vec<(EncodeInput, Place)>,
    pub(super) special: bool,
    pub(super) truncation: Truncation,
    pub(super) priority: Priority,
}

/// What came of them.
pub(super) struct Read {
    pub(super) texts: Vec<EncodedText>,
    pub(super) served: Vec<ServedAdapter>,
    pub(super) queued: Duration,
}

impl Generator {
    /// Reads texts: all of them, or none.
    ///
    /// # Errors
    /// When a field is wrong, a text does not fit, the adapter cannot be had, model and adapter have not what is wanted, or the
    /// engine is full or gone.
    pub async fn encode(&self, request: EncodeRequest) -> Result<Encoded, GenerateError> {
        let EncodeRequest { inputs, field, adapters, wanted, .. } = request;
        let is_one = inputs.len() == 1;
        let place = |at: usize| {
            let field = if is_one { field.to_owned() } else { format!("{field}[{at}]") };
            Place { what: format!("`{field}`"), field }
        };
        let inputs: Vec<_> =
            inputs.into_iter().enumerate().map(|(at, input)| (input, place(at))).collect();
        let texts = Texts {
            inputs,
            special: request.add_special_tokens,
            truncation: request.truncation,
            priority: request.priority,
        };
        let parts = self.parts(adapters).await?;
        let model = self.model();
        let plan = Plan::new(&wanted, &model.abilities, model.max_context, &parts)?;
        let labels = plan.labels().cloned();
        if texts.inputs.is_empty() {
            let message = format!("`{field}` has nothing to read; give it at least one text");
            return Err(GenerateError::Invalid { field, message });
        }
        let Read { texts, served, queued } = self.read(texts, plan, parts).await?;
        Ok(Encoded { texts, labels, served, queued })
    }

    /// How texts are read where a request does not say.
    pub fn encode_config(&self) -> EncodeConfig {
        self.1
    }

    /// The same service with other settings of reading.
    #[must_use]
    pub fn reading_as(self, config: EncodeConfig) -> Self {
        Self(self.0, config)
    }

    /// Pins every version of a mix, or none.
    pub(super) async fn parts(
        &self,
        adapters: Vec<WeightedAdapter>,
    ) -> Result<Vec<Part>, GenerateError> {
        let fields: Vec<_> = adapters.iter().map(|adapter| adapter.field.clone()).collect();
        let leases = self.lease(adapters).await?;
        Ok(leases.into_iter().zip(fields).map(|((lease, w), field)| (lease, w, field)).collect())
    }

    /// Reads texts with these versions.
    pub(super) async fn read(
        &self,
        texts: Texts,
        plan: Plan,
        parts: Vec<Part>,
    ) -> Result<Read, GenerateError> {
        let leases: Vec<_> = parts.into_iter().map(|(lease, weight, _)| (lease, weight)).collect();
        let served = account::served(&leases);
        let adapters = AdapterMix::new(leases)?;
        let (priority, form) = (texts.priority, self.form(&texts, &plan));
        let bytes =
            texts.inputs.iter().map(|(input, _)| size(input) + plan.prefix.len()).sum::<usize>();
        let (plan, inputs) = (Arc::new(plan), texts.inputs);
        let of = plan.clone();
        let read = self
            .work(bytes <= INLINE_BYTES, move |inner| {
                tokenised(&inner.tokenizer, inputs, &of, form)
            })
            .await?;
        let (texts, spelled): (Vec<Text>, Vec<String>) = read.into_iter().unzip();
        let silent = SamplingOptions { max_tokens: 0, ..SamplingOptions::default() };
        let window = Window {
            backend: self.0.backend.clone(),
            adapters,
            sampling: SamplingParams::new(silent, self.model().vocab, 0)?,
            output: plan.output,
            priority,
            account: Account::of_reading(self.metrics(priority).clone(), &served),
            size: self.1.window,
        };
        let given = window.read(&texts).await?;
        let queued = given.iter().map(|one| one.queued).max().unwrap_or_default();
        let values = given.iter().map(|one| one.values.len()).sum::<usize>();
        let finish = move |_: &_| finished(&plan.finish, given, &texts, &spelled);
        let texts = self.work(values <= INLINE_VALUES, finish).await?;
        Ok(Read { texts, served: account::told(&served), queued })
    }

    fn form(&self, texts: &Texts, plan: &Plan) -> Form {
        let Truncation { cut, limit, keep } = texts.truncation;
        let cuts = limit.is_some() || cut.unwrap_or(self.1.auto_truncate);
        Form {
            special: texts.special,
            spans: matches!(plan.finish, Finish::Entities { .. }),
            limit: limit.map_or(plan.limit, |limit| limit.min(plan.limit)),
            keep: cuts.then_some(keep),
            vocab: self.model().vocab,
        }
    }
}

/// Roughly the work that it makes, in bytes of text.
fn size(input: &EncodeInput) -> usize {
    match input {
        EncodeInput::Text(text) => text.len(),
        EncodeInput::Pair(first, second) => first.len() + second.len(),
        EncodeInput::Tokens(ids) => ids.len() / 64,
    }
}

/// Every input's tokens, and its text where that matters afterwards.
fn tokenised(
    tokenizer: &Tokenizer,
    inputs: Vec<(EncodeInput, Place)>,
    plan: &Plan,
    form: Form,
) -> Result<Vec<(Text, String)>, GenerateError> {
    let prefixed = |text: String| {
        if plan.prefix.is_empty() { text } else { [plan.prefix.as_str(), &text].concat() }
    };
    let one = |(input, place): (EncodeInput, Place)| {
        if form.spans && !matches!(input, EncodeInput::Text(_)) {
            let message = format!("{} must be one text: its labels are of parts of it", place.what);
            return Err(place.invalid(message));
        }
        match input {
            EncodeInput::Tokens(ids) => Ok((text::of_tokens(ids, form, &place)?, String::new())),
            EncodeInput::Text(text) if text.is_empty() => Err(place.empty()),
            EncodeInput::Text(text) => {
                let text = prefixed(text);
                let read = tokenizer.read((&text, None), form, &place)?;
                Ok((read, if form.spans { text } else { String::new() }))
            }
            EncodeInput::Pair(first, second) => {
                Ok((tokenizer.read((&first, Some(&second)), form, &place)?, String::new()))
            }
        }
    };
    Ok(inputs.into_iter().map(one).collect::<Result<_, _>>()?)
}

fn finished(
    finish: &Finish,
    given: Vec<Given>,
    texts: &[Text],
    spelled: &[String],
) -> Result<Vec<EncodedText>, GenerateError> {
    let texts = texts.iter().zip(spelled).zip(given).map(|((text, spelled), given)| {
        let value = values::finish(finish, given.values, (text, spelled));
        let tokens = text.ids.len();
        let other = || GenerateError::Internal("an output has another length than it says".into());
        Ok(EncodedText { tokens, value: value.ok_or_else(other)? })
    });
    texts.collect()
}

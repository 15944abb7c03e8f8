//! One request that the model reads: admitted, counted, mirrored and told of as generations are.
use crate::{
    generation::{
        EncodeRequest, Encoded, EncodedValue, Entity, GenerateError, Generator, Priority,
        ScoreRequest, Scored, ServedAdapter, WeightedAdapter,
    },
    http::{ApiError, AppState, access::Access, fan_out::admit, split::Split},
};
use std::time::Duration;

/// What can be asked of a model that reads.
pub(in crate::http) trait Ask: Clone + Send + 'static {
    /// What it answers.
    type Answer: Send + 'static;

    /// What changes the base in it.
    fn adapters(&self) -> &[WeightedAdapter];

    /// The same for a shadow.
    fn of_shadow(&self, adapters: Vec<WeightedAdapter>) -> Self;

    /// Lets the model read.
    fn answer(
        self,
        generator: &Generator,
    ) -> impl Future<Output = Result<Self::Answer, GenerateError>> + Send;

    /// What that took.
    fn cost(answer: &Self::Answer) -> Cost<'_>;

    /// What can be compared of it with another adapter's answer: what was decided, not how surely.
    fn decisions(answer: &Self::Answer) -> Option<Vec<String>>;
}

/// What an answer took.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Cost<'a> {
    /// Tokens that were read.
    pub(in crate::http) tokens: usize,
    /// What changed the base.
    pub(in crate::http) served: &'a [ServedAdapter],
    /// The longest wait for a first step.
    pub(in crate::http) queued: Duration,
}

/// Asks, and waits for the answer. Dropping it cancels what still runs.
///
/// # Errors
/// What the generator refuses; 429 where an adapter takes no more.
pub(in crate::http) async fn read<A: Ask>(
    app: &AppState,
    ask: A,
    split: Split,
) -> Result<A::Answer, ApiError> {
    let _permits = admit(app, ask.adapters())?;
    let shadow = app.shadows.reserve(app, &split);
    let mut tally = split.begin(app);
    let mirror = shadow.map(|reserved| reserved.read(app, &ask));
    let answer = match ask.answer(&app.generator).await {
        Ok(answer) => answer,
        Err(error) => {
            tally.failed(&error);
            return Err(error.into());
        }
    };
    tally.answered();
    if let Some(access) = Access::current() {
        access.read(A::cost(&answer));
    }
    if let Some(mirror) = mirror {
        // The shadow may have failed, or been cancelled.
        let _ = mirror.send(A::decisions(&answer));
    }
    Ok(answer)
}

impl Ask for EncodeRequest {
    type Answer = Encoded;

    fn adapters(&self) -> &[WeightedAdapter] {
        &self.adapters
    }

    fn of_shadow(&self, adapters: Vec<WeightedAdapter>) -> Self {
        Self { adapters, priority: Priority::Shadow, ..self.clone() }
    }

    async fn answer(self, generator: &Generator) -> Result<Encoded, GenerateError> {
        generator.encode(self).await
    }

    fn cost(answer: &Encoded) -> Cost<'_> {
        Cost { tokens: answer.tokens(), served: &answer.served, queued: answer.queued }
    }

    fn decisions(answer: &Encoded) -> Option<Vec<String>> {
        let labels = answer.labels.as_ref()?;
        let found = |entity: &Entity| format!("{}@{}-{}", entity.label, entity.start, entity.end);
        let decision = |value: &EncodedValue| match value {
            EncodedValue::Scores(scores) => {
                super::best(scores).and_then(|at| labels.names.get(at)).cloned().unwrap_or_default()
            }
            EncodedValue::Entities(entities) => {
                entities.iter().map(found).collect::<Vec<_>>().join(";")
            }
            EncodedValue::Vector(_) | EncodedValue::Vectors(_) => String::new(),
        };
        Some(answer.texts.iter().map(|text| decision(&text.value)).collect())
    }
}

impl Ask for ScoreRequest {
    type Answer = Scored;

    fn adapters(&self) -> &[WeightedAdapter] {
        &self.adapters
    }

    fn of_shadow(&self, adapters: Vec<WeightedAdapter>) -> Self {
        Self { adapters, priority: Priority::Shadow, ..self.clone() }
    }

    async fn answer(self, generator: &Generator) -> Result<Scored, GenerateError> {
        generator.score(self).await
    }

    fn cost(answer: &Scored) -> Cost<'_> {
        Cost { tokens: answer.tokens, served: &answer.served, queued: answer.queued }
    }

    fn decisions(_: &Scored) -> Option<Vec<String>> {
        None
    }
}

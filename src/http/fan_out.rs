//! Several prompts of one HTTP request, generated side by side.
use super::ApiError;
use crate::generation::{
    Completion, FinishedBecause, GenerateError, GenerateEvent, GenerateRequest, Generation,
    Generator, Token, Usage,
};
use futures_util::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};

/// The answers to all prompts, interleaved; answer `i` of prompt `p` has the index `p * n + i`.
///
/// Dropping it cancels whatever still runs.
pub(super) struct Answers {
    streams: SelectAll<BoxStream<'static, Result<GenerateEvent, GenerateError>>>,
    count: usize,
}

impl Answers {
    /// Starts every request; they all have the same `n`.
    ///
    /// # Errors
    /// The first request that is refused; those before it are cancelled.
    pub(super) async fn start(
        generator: &Generator,
        requests: Vec<GenerateRequest>,
    ) -> Result<Self, ApiError> {
        let mut streams = SelectAll::new();
        let mut count = 0;
        for request in requests {
            let (first, n) = (count, request.n);
            let generation: Generation = generator.generate(request).await?;
            streams.push(generation.map(move |event| Ok(shift(event?, first))).boxed());
            count += n;
            // A hundred short prompts are tokenised here one after the other; others want the thread too.
            tokio::task::yield_now().await;
        }
        Ok(Self { streams, count })
    }

    /// The next event of any answer; `None` when all have ended.
    pub(super) async fn next(&mut self) -> Option<Result<GenerateEvent, GenerateError>> {
        self.streams.next().await
    }

    /// Waits for all answers, by index.
    ///
    /// # Errors
    /// The first failure; the others are cancelled.
    pub(super) async fn collect(mut self) -> Result<Vec<Completion>, ApiError> {
        let mut gathered: Vec<Gathered> = (0..self.count).map(|_| Gathered::default()).collect();
        while let Some(event) = self.next().await {
            match event? {
                GenerateEvent::Delta { index, text, tokens } => {
                    gathered[index].text.push_str(&text);
                    gathered[index].tokens.extend(tokens);
                }
                GenerateEvent::Finished { index, because, usage } => {
                    gathered[index].end = Some((because, usage));
                }
            }
        }
        gathered.into_iter().enumerate().map(|(index, answer)| answer.complete(index)).collect()
    }
}

#[derive(Default)]
struct Gathered {
    text: String,
    tokens: Vec<Token>,
    end: Option<(FinishedBecause, Usage)>,
}

impl Gathered {
    fn complete(self, index: usize) -> Result<Completion, ApiError> {
        let Some((because, usage)) = self.end else {
            tracing::error!(index, "a generation ended without a reason");
            return Err(ApiError::internal("generation_cut_short"));
        };
        Ok(Completion { index, text: self.text, tokens: self.tokens, because, usage })
    }
}

fn shift(event: GenerateEvent, by: usize) -> GenerateEvent {
    match event {
        GenerateEvent::Delta { index, text, tokens } => {
            GenerateEvent::Delta { index: index + by, text, tokens }
        }
        GenerateEvent::Finished { index, because, usage } => {
            GenerateEvent::Finished { index: index + by, because, usage }
        }
    }
}

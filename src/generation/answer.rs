//! One of a request's answers: the engine's events to what a client sees.
use super::{
    FinishedBecause, GenerateError, GenerateEvent, StopReason, Token, Usage,
    meter::Meter,
    text_stream::{Pushed, TextStream},
    tokenizer::Tokenizer,
};
use crate::engine::{EngineError, Event, EventStream, FinishReason, TokenLogprobs};
use std::{
    sync::Arc,
    task::{Context, Poll},
};

/// A running answer. Dropping it cancels its sequence.
pub(super) struct Answer {
    pub(super) index: usize,
    pub(super) events: EventStream,
    pub(super) text: TextStream,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) usage: Usage,
    pub(super) meter: Meter,
}

/// What one poll of an answer brought.
#[derive(Default)]
pub(super) struct Progress {
    text: String,
    tokens: Vec<Token>,
    /// What the model thought of more of the prompt.
    pub(super) prompt: Vec<TokenLogprobs>,
    /// Why the answer ended, if it did.
    because: Option<FinishedBecause>,
}

impl Progress {
    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.prompt.is_empty()
    }
}

impl Answer {
    /// Everything the engine has sent since the last poll, as one step.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Progress, GenerateError>> {
        let mut progress = Progress::default();
        while progress.because.is_none() {
            match self.events.poll_recv(cx) {
                Poll::Ready(event) => self.take(event, &mut progress)?,
                Poll::Pending if progress.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(progress))
    }

    fn take(&mut self, event: Option<Event>, to: &mut Progress) -> Result<(), GenerateError> {
        match event {
            Some(Event::Started { cached_tokens, queued }) => {
                self.meter.queued(queued);
                // The same prompt is found once for all its answers.
                if self.index == 0 {
                    self.meter.cached(cached_tokens);
                }
                self.usage.cached_tokens = cached_tokens;
                self.usage.queued = queued;
            }
            // Nobody asks for one beside an answer.
            Some(Event::Output { .. }) => {}
            Some(Event::Prompt { logprobs }) => to.prompt.extend(logprobs),
            Some(Event::Token { id, logprobs }) => {
                self.usage.completion_tokens += 1;
                self.meter.token();
                let Pushed { shown, released } = self.text.push(id);
                to.tokens.push(Token { shown, ..self.tokenizer.judged(id, logprobs) });
                to.text.push_str(&released.text);
                to.because = released.stop.map(stopped_by_text);
            }
            Some(Event::Finished { reason }) => {
                let released = self.text.finish();
                to.text.push_str(&released.text);
                to.because = Some(released.stop.map_or_else(|| because(reason), stopped_by_text));
            }
            Some(Event::Failed(error)) => return Err(self.failed(error)),
            None => return Err(self.failed(EngineError::Stopped)),
        }
        if let Some(because) = &to.because {
            self.meter.finished(because);
        }
        Ok(())
    }

    fn failed(&mut self, error: EngineError) -> GenerateError {
        self.meter.failed();
        error.into()
    }

    /// The events of `progress`; the second one ends the answer.
    pub(super) fn events(
        &self,
        progress: Progress,
    ) -> (Option<GenerateEvent>, Option<GenerateEvent>) {
        let Progress { text, tokens, because, prompt: _ } = progress;
        let index = self.index;
        let delta = (!text.is_empty() || !tokens.is_empty()).then_some(GenerateEvent::Delta {
            index,
            text,
            tokens,
        });
        let end =
            because.map(|because| GenerateEvent::Finished { index, because, usage: self.usage });
        (delta, end)
    }
}

fn because(reason: FinishReason) -> FinishedBecause {
    match reason {
        FinishReason::EndOfSequence => FinishedBecause::Stop(StopReason::EndOfSequence),
        FinishReason::StopToken(id) => FinishedBecause::Stop(StopReason::Token(id)),
        FinishReason::Length => FinishedBecause::Length,
    }
}

fn stopped_by_text(stop: String) -> FinishedBecause {
    FinishedBecause::Stop(StopReason::Text(stop))
}

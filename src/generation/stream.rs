//! A request's answers while they are made.
use super::{Completion, GenerateError, GenerateEvent, ServedAdapter, answer::Answer};
use futures_util::{Stream, StreamExt};
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

/// The answers to one request, as they come. Dropping it cancels all that still run.
pub struct Generation {
    /// Tokens of the prompt, after truncation.
    pub prompt_tokens: usize,
    /// What changes the base in these answers, in the request's order.
    pub served: Vec<ServedAdapter>,
    prompt: Vec<u32>,
    /// The running ones; the front one is asked first.
    running: VecDeque<Answer>,
    /// Events that came with the last one.
    ready: VecDeque<GenerateEvent>,
}

impl Generation {
    pub(super) fn new(prompt: Vec<u32>, served: Vec<ServedAdapter>, answers: Vec<Answer>) -> Self {
        Self {
            prompt_tokens: prompt.len(),
            served,
            prompt,
            running: answers.into(),
            ready: VecDeque::new(),
        }
    }

    /// The prompt's tokens as the model sees them.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// The next event of any answer; `None` when all have ended. After an error nothing comes.
    pub async fn next(&mut self) -> Option<Result<GenerateEvent, GenerateError>> {
        StreamExt::next(self).await
    }

    /// Waits for all answers, in the order of their index.
    ///
    /// # Errors
    /// The first failure of any answer; the others are cancelled.
    pub async fn collect(mut self) -> Result<Vec<Completion>, GenerateError> {
        let mut parts: Vec<(String, Vec<_>)> = vec![Default::default(); self.running.len()];
        let mut completions = Vec::with_capacity(parts.len());
        while let Some(event) = self.next().await {
            match event? {
                GenerateEvent::Delta { index, text, tokens } => {
                    parts[index].0.push_str(&text);
                    parts[index].1.extend(tokens);
                }
                GenerateEvent::Finished { index, because, usage } => {
                    let (text, tokens) = std::mem::take(&mut parts[index]);
                    completions.push(Completion { index, text, tokens, because, usage });
                }
            }
        }
        completions.sort_by_key(|completion| completion.index);
        Ok(completions)
    }

    /// Asks each answer once, beginning with the one that has waited longest.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), GenerateError>>> {
        for _ in 0..self.running.len() {
            let Some(mut answer) = self.running.pop_front() else { break };
            match answer.poll(cx) {
                Poll::Pending => self.running.push_back(answer),
                Poll::Ready(Err(error)) => {
                    self.running.clear();
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(Ok(progress)) => {
                    let (delta, end) = answer.events(progress);
                    if end.is_none() {
                        self.running.push_back(answer);
                    }
                    self.ready.extend(delta.into_iter().chain(end));
                    return Poll::Ready(Some(Ok(())));
                }
            }
        }
        if self.running.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl Stream for Generation {
    type Item = Result<GenerateEvent, GenerateError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            match std::task::ready!(self.poll_answers(cx)) {
                Some(Ok(())) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

//! A request's answers while they are made.
use super::{
    Completion, GenerateError, GenerateEvent, PromptTokens, ServedAdapter, answer::Answer,
    echo::Echo,
};
use futures_util::{Stream, StreamExt};
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// The answers to one request, as they come. Dropping it cancels all that still run.
pub struct Generation {
    /// Tokens of the prompt, after truncation.
    pub prompt_tokens: usize,
    /// What changes the base in these answers, in the request's order.
    pub served: Vec<ServedAdapter>,
    prompt: Vec<u32>,
    /// What is still to be told of it; goes before everything else.
    echo: Option<Echo>,
    /// The running ones; the front one is asked first.
    running: VecDeque<Answer>,
    /// Events that came with the last one.
    ready: VecDeque<GenerateEvent>,
}

impl Generation {
    pub(super) fn new(
        prompt: Vec<u32>,
        served: Vec<ServedAdapter>,
        echo: Option<Echo>,
        answers: Vec<Answer>,
    ) -> Self {
        Self {
            prompt_tokens: prompt.len(),
            served,
            prompt,
            echo,
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
        let mut prompt = self.echo.is_some().then(PromptTokens::default);
        while let Some(event) = self.next().await {
            match event? {
                GenerateEvent::Prompt { text, tokens, .. } => {
                    let told = prompt.get_or_insert_default();
                    told.text.push_str(&text);
                    told.tokens.extend(tokens);
                }
                GenerateEvent::Delta { index, text, tokens } => {
                    parts[index].0.push_str(&text);
                    parts[index].1.extend(tokens);
                }
                GenerateEvent::Finished { index, because, usage } => {
                    let (text, tokens) = std::mem::take(&mut parts[index]);
                    let prompt = None;
                    completions.push(Completion { index, text, tokens, prompt, because, usage });
                }
            }
        }
        completions.sort_by_key(|completion| completion.index);
        let prompt = prompt.map(Arc::new);
        for answer in &mut completions {
            answer.prompt.clone_from(&prompt);
        }
        Ok(completions)
    }

    /// The next piece of the prompt. The first answer brings its log-probabilities, and may bring more; the others
    /// have to wait.
    fn poll_echo(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<GenerateEvent, GenerateError>>> {
        while let Some(echo) = &mut self.echo {
            if let Some(piece) = echo.next() {
                return Poll::Ready(Some(Ok(piece)));
            }
            if echo.is_done() {
                self.echo = None;
                break;
            }
            let Some(answer) = self.running.front_mut() else { return Poll::Ready(None) };
            match std::task::ready!(answer.poll(cx)) {
                Ok(mut progress) => {
                    echo.take(std::mem::take(&mut progress.prompt));
                    let (delta, end) = answer.events(progress);
                    if end.is_some() {
                        self.running.pop_front();
                    }
                    self.ready.extend(delta.into_iter().chain(end));
                }
                Err(error) => {
                    self.running.clear();
                    self.echo = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        Poll::Ready(None)
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
        if let Some(told) = std::task::ready!(self.poll_echo(cx)) {
            return Poll::Ready(Some(told));
        }
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

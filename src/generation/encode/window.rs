//! A request's texts in the engine, so many at a time: one of a thousand does not fill the queue for all others.
use super::{tally::Tally, text::Text};
use crate::{
    engine::{AdapterMix, EngineError, Event, EventStream, Output, SamplingParams, Submission},
    generation::{Backend, GenerateError, Priority, account::Account},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{sync::Arc, time::Duration};

/// What is the same in all texts of a request.
pub(super) struct Window {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) adapters: AdapterMix,
    /// Of no token at all.
    pub(super) sampling: SamplingParams,
    pub(super) output: Output,
    pub(super) priority: Priority,
    pub(super) account: Account,
    /// Texts that wait or run at the same time.
    pub(super) size: usize,
}

/// What the engine gave for one text.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) values: Vec<f32>,
    pub(super) queued: Duration,
}

impl Window {
    /// Reads all texts, in any order. Dropping the future cancels all.
    ///
    /// # Errors
    /// The first failure of any of them. A full queue is one only while none of them is in it.
    pub(super) async fn read(&self, texts: &[Text]) -> Result<Vec<Given>, GenerateError> {
        let mut given: Vec<Given> = texts.iter().map(|_| Given::default()).collect();
        let mut running = FuturesUnordered::new();
        let mut next = 0;
        loop {
            while next < texts.len() && running.len() < self.size.max(1) {
                match self.submit(&texts[next]) {
                    Ok((stream, tally)) => running.push(one(next, stream, tally)),
                    // Its own make room for it.
                    Err(EngineError::Overloaded { .. }) if !running.is_empty() => break,
                    Err(error) => return Err(error.into()),
                }
                next += 1;
            }
            let Some(ended) = running.next().await else { return Ok(given) };
            let (index, read) = ended?;
            given[index] = read;
        }
    }

    fn submit(&self, text: &Text) -> Result<(EventStream, Tally), EngineError> {
        let stream = self.backend.submit(Submission {
            prompt: text.ids.clone(),
            adapters: self.adapters.clone(),
            sampling: self.sampling.clone(),
            output: Some(self.output),
            second_text: text.second,
            constraint: None,
            cache_salt: None,
            priority: self.priority,
        })?;
        Ok((stream, Tally::start(self.account.clone(), text.ids.len())))
    }
}

/// Until the text at `index` is read.
async fn one(
    index: usize,
    mut stream: EventStream,
    mut tally: Tally,
) -> Result<(usize, Given), GenerateError> {
    let mut given = Given::default();
    loop {
        match stream.recv().await {
            Some(Event::Started { cached_tokens, queued }) => {
                tally.started(cached_tokens, queued);
                given.queued = queued;
            }
            Some(Event::Output { values }) => given.values = values,
            Some(Event::Finished { .. }) => {
                tally.read();
                return Ok((index, given));
            }
            Some(Event::Failed(error)) => return Err(tally.failed(error)),
            // Nobody asks for these beside an output.
            Some(Event::Prompt { .. } | Event::Token { .. }) => {}
            None => return Err(tally.failed(EngineError::Stopped)),
        }
    }
}

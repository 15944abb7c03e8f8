//! One prompt and its continuation.
use super::{
    EngineError, Event, FinishReason, SamplingParams, Submission,
    counts::TokenCounts,
    kv::{BlockId, PrefixChain},
    sampler::{Choice, Draw},
    ticket::Ticket,
};
use crate::{
    adapter::{AdapterLease, VersionId},
    lora::AdapterSlot,
};
use std::{sync::Arc, time::Instant};
use tokio::sync::mpsc;

/// Prefill and decode are one thing: `computed` catches up with `tokens`.
#[derive(Debug)]
pub(super) struct Sequence {
    /// Order of arrival.
    pub(super) id: u64,
    pub(super) tokens: Vec<u32>,
    /// How many of `tokens` are the prompt.
    pub(super) prompt_len: usize,
    /// How many of `tokens` have their keys and values in the cache.
    pub(super) computed: usize,
    /// How many more this step computes.
    pub(super) granted: usize,
    /// Block `i` holds tokens `i * block_size ..`.
    pub(super) block_table: Vec<BlockId>,
    pub(super) prefix: PrefixChain,
    pub(super) adapter: Option<AdapterLease>,
    /// Where the adapter lies while the sequence runs.
    pub(super) slot: Option<AdapterSlot>,
    sampling: SamplingParams,
    counts: TokenCounts,
    /// Tokens that end it and are not sent; empty where the request ignores them.
    eos: Arc<[u32]>,
    submitted: Instant,
    started: bool,
    ticket: Option<Ticket>,
    events: mpsc::UnboundedSender<Event>,
    over: bool,
}

/// Where a sequence comes from: its caller's side.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) submission: Submission,
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) ticket: Ticket,
    pub(super) at: Instant,
}

impl Sequence {
    /// Sequence number `id`, which nothing is computed of.
    pub(super) fn new(id: u64, arrival: Arrival, eos: &Arc<[u32]>) -> Self {
        let Arrival { submission, events, ticket, at } = arrival;
        let Submission { prompt, adapter, sampling } = submission;
        let options = sampling.options();
        Self {
            id,
            prompt_len: prompt.len(),
            computed: 0,
            granted: 0,
            block_table: Vec::new(),
            prefix: PrefixChain::new(adapter.as_ref().map(|lease| lease.id)),
            counts: TokenCounts::new(&prompt, options),
            eos: if options.ignore_eos { Arc::new([]) } else { eos.clone() },
            tokens: prompt,
            adapter,
            slot: None,
            sampling,
            submitted: at,
            started: false,
            ticket: Some(ticket),
            events,
            over: false,
        }
    }

    /// Tokens whose keys and values are missing.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether this step reaches the end, so that a token can be chosen.
    pub(super) fn wants_logits(&self) -> bool {
        self.granted == self.pending()
    }

    /// The adapter version, `None` for the base model.
    pub(super) fn version(&self) -> Option<VersionId> {
        self.adapter.as_ref().map(|lease| lease.id)
    }

    /// Whether it has been in a step already and was put back.
    pub(super) fn was_preempted(&self) -> bool {
        self.started
    }

    /// It leaves the queue, with `cached` tokens found in the prefix cache. Whether it is the first time.
    pub(super) fn start(&mut self, cached: usize, now: Instant) -> bool {
        self.computed = cached;
        self.ticket = None;
        let first = !std::mem::replace(&mut self.started, true);
        if first {
            let queued = now.saturating_duration_since(self.submitted);
            self.send(Event::Started { cached_tokens: cached, queued });
        }
        first
    }

    /// What the sampler needs to choose the next token from `logits`.
    pub(super) fn draw<'a>(&'a self, logits: &'a [f32]) -> Draw<'a> {
        Draw {
            logits,
            params: &self.sampling,
            counts: &self.counts,
            eos: &self.eos,
            answered: self.tokens.len() - self.prompt_len,
        }
    }

    /// Takes the chosen token: the answer goes on, or ends with it. `limit` is the model's context.
    pub(super) fn accept(&mut self, choice: Choice, limit: usize) {
        let Choice { id, logprobs } = choice;
        if self.eos.contains(&id) {
            return self.finish(FinishReason::EndOfSequence);
        }
        if self.sampling.options().stop_token_ids.contains(&id) {
            return self.finish(FinishReason::StopToken(id));
        }
        self.tokens.push(id);
        self.counts.push(id);
        self.send(Event::Token { id, logprobs });
        let answered = self.tokens.len() - self.prompt_len;
        if answered >= self.sampling.options().max_tokens || self.tokens.len() >= limit {
            self.finish(FinishReason::Length);
        }
    }

    fn finish(&mut self, reason: FinishReason) {
        self.send(Event::Finished { reason });
        self.over = true;
    }

    /// Ends it with an error.
    pub(super) fn fail(&mut self, error: EngineError) {
        self.send(Event::Failed(error));
        self.over = true;
    }

    /// Whether it has ended, or its caller has gone.
    pub(super) fn is_over(&self) -> bool {
        self.over || self.events.is_closed()
    }

    /// Best effort: a caller who left is noticed by [`Sequence::is_over`].
    fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

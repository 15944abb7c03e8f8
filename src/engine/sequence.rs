//! One prompt and its continuation.
use super::{
    EngineError, Event, FinishReason, Priority, SamplingParams, Submission, Unenforceable,
    accounts::AccountId,
    constraint::Constrained,
    counts::TokenCounts,
    draft::Draft,
    kv::{BlockId, PrefixChain, PrefixPart},
    mix::{ActivePart, Versions, versions},
    sampler::{Choice, Draw},
    ticket::Ticket,
};
use crate::lora::{AdapterSlot, SlotUse};
use std::{cmp::Ordering, sync::Arc, time::Instant};
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
    /// How many more this step computes, guessed ones included.
    pub(super) granted: usize,
    /// Guesses at the tokens after `tokens`, computed together with the last one of those.
    pub(super) draft: Draft,
    /// Block `i` holds tokens `i * block_size ..`.
    pub(super) block_table: Vec<BlockId>,
    pub(super) prefix: PrefixChain,
    /// The adapters that change it; none is the base model.
    pub(super) adapters: Box<[ActivePart]>,
    /// Where each of them lies while the sequence runs; empty otherwise.
    pub(super) slots: Vec<AdapterSlot>,
    pub(super) priority: Priority,
    /// Whose tokens these are, and with which share.
    pub(super) account: AccountId,
    pub(super) share: f32,
    versions: Versions,
    sampling: SamplingParams,
    /// Has seen the answer's tokens, however often their keys and values are computed.
    constraint: Option<Constrained>,
    counts: TokenCounts,
    /// Tokens that end it and are not sent; empty where the request ignores them.
    eos: Arc<[u32]>,
    pub(super) submitted: Instant,
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

fn prefix_part(part: &ActivePart) -> PrefixPart {
    PrefixPart { version: part.lease.id, weight: part.weight, from: part.from }
}

impl Sequence {
    /// Sequence number `id`, which nothing is computed of.
    pub(super) fn new(id: u64, arrival: Arrival, eos: &Arc<[u32]>) -> Self {
        let Arrival { submission, events, ticket, at } = arrival;
        let Submission { prompt, adapters, sampling, constraint, priority } = submission;
        let shares = adapters.parts().iter().map(|part| part.lease.terms.share);
        let share = shares.reduce(f32::min).unwrap_or(1.0);
        let adapters = adapters.active(&prompt);
        let options = sampling.options();
        Self {
            id,
            prompt_len: prompt.len(),
            computed: 0,
            granted: 0,
            draft: Draft::default(),
            block_table: Vec::new(),
            prefix: PrefixChain::new(adapters.iter().map(prefix_part)),
            counts: TokenCounts::new(&prompt, options),
            eos: if options.ignore_eos { Arc::new([]) } else { eos.clone() },
            tokens: prompt,
            versions: versions(&adapters),
            slots: Vec::with_capacity(adapters.len()),
            adapters,
            priority,
            account: AccountId::default(),
            share,
            sampling,
            constraint: constraint.map(Constrained::new),
            submitted: at,
            started: false,
            ticket: Some(ticket),
            events,
            over: false,
        }
    }

    /// Makes room for everything it may become, at most `limit` tokens, so that no step has to.
    pub(super) fn reserve(&mut self, limit: usize, block_size: usize) {
        let answer = self.sampling.options().max_tokens;
        let most = self.prompt_len.saturating_add(answer).min(limit.max(self.prompt_len));
        self.tokens.reserve_exact(most - self.tokens.len());
        self.block_table.reserve_exact(most.div_ceil(block_size));
        self.prefix.reserve(most, block_size);
    }

    /// Tokens whose keys and values are missing.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether this step reaches the end, so that a token can be chosen.
    pub(super) fn wants_logits(&self) -> bool {
        self.granted >= self.pending()
    }

    /// How many rows of logits this step needs of it: the last token's and one for each guess.
    pub(super) fn choices(&self) -> usize {
        if self.wants_logits() { 1 + self.draft.tokens().len() } else { 0 }
    }

    /// The tokens this step computes, known ones and guesses.
    pub(super) fn scheduled(&self) -> impl Iterator<Item = u32> {
        let known = &self.tokens[self.computed..];
        known.iter().chain(self.draft.tokens()).take(self.granted).copied()
    }

    /// Guesses at most `most` tokens beyond the one that is chosen anyway. How many it guessed.
    ///
    /// None where a penalty or a constraint depends on the guessed tokens themselves, none beyond the answer's end.
    pub(super) fn guess(&mut self, most: usize, limit: usize) -> usize {
        let answered = self.tokens.len() - self.prompt_len;
        let left = (self.sampling.options().max_tokens - answered).min(limit - self.tokens.len());
        let is_free = self.counts.is_empty() && self.constraint.is_none();
        let most = if is_free { most.min(left.saturating_sub(1)) } else { 0 };
        self.draft.guess(&self.tokens, most)
    }

    /// Takes the choices of a step, one after the other, as long as the guess before each was right.
    /// How many it took.
    pub(super) fn accept_all(
        &mut self,
        choices: impl Iterator<Item = Choice>,
        limit: usize,
    ) -> usize {
        let (mut taken, mut right) = (0, 0);
        for choice in choices {
            let id = choice.id;
            self.accept(choice, limit);
            taken += 1;
            if self.over || self.draft.tokens().get(right) != Some(&id) {
                break;
            }
            right += 1;
        }
        self.draft.judge(right);
        taken
    }

    /// The versions that change it; none is the base model.
    pub(super) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Names of the adapters that change it.
    pub(super) fn names(&self) -> Vec<String> {
        self.adapters.iter().map(|part| part.lease.name.to_string()).collect()
    }

    /// Where its adapters lie, and which rows each of them changes, the first of which is at position `first`.
    pub(super) fn slot_uses(&self, first: usize) -> impl Iterator<Item = SlotUse> {
        let uses = self.slots.iter().zip(&self.adapters);
        uses.map(move |(slot, part)| SlotUse {
            slot: *slot,
            weight: part.weight,
            from: part.from.saturating_sub(first),
        })
    }

    /// An order in which sequences with the same slots and weights lie side by side.
    pub(super) fn cmp_adapters(&self, other: &Self) -> Ordering {
        let weights = self.adapters.iter().zip(&other.adapters);
        let mut weights = weights.map(|(own, other)| own.weight.total_cmp(&other.weight));
        let by_weight = || weights.find(|order| order.is_ne()).unwrap_or(Ordering::Equal);
        self.slots.cmp(&other.slots).then_with(by_weight)
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

    /// What the sampler needs to choose the next token from `logits`, of which `best` is the most likely.
    ///
    /// `ahead` guesses stand between the last known token and the one to choose.
    pub(super) fn draw<'a>(
        &'a self,
        (logits, best): (&'a [f32], Option<u32>),
        ahead: usize,
    ) -> Draw<'a> {
        Draw {
            logits,
            best,
            params: &self.sampling,
            counts: &self.counts,
            constraint: self.constraint.as_ref(),
            eos: &self.eos,
            answered: self.tokens.len() - self.prompt_len + ahead,
        }
    }

    /// Takes the chosen token: the answer goes on, or ends with it. `limit` is the model's context.
    fn accept(&mut self, choice: Choice, limit: usize) {
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
        match self.constraint.as_ref().map_or(Ok(false), |constraint| constraint.accept(id)) {
            Ok(false) => {}
            Ok(true) => return self.finish(FinishReason::EndOfSequence),
            Err(Unenforceable) => return self.fail(EngineError::Constraint),
        }
        let answered = self.tokens.len() - self.prompt_len;
        if answered >= self.sampling.options().max_tokens || self.tokens.len() >= limit {
            self.finish(FinishReason::Length);
        }
    }

    /// Ends it: the answer is whole.
    pub(super) fn finish(&mut self, reason: FinishReason) {
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

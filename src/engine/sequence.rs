//! One prompt and its continuation.
use super::{
    EngineError, Event, FinishReason, Output, Priority, SamplingParams, Submission, Unenforceable,
    accounts::AccountId,
    constraint::Constrained,
    counts::TokenCounts,
    draft::Draft,
    kv::{BlockId, PrefixChain, PrefixPart},
    mix::{ActivePart, Versions, versions},
    sampler::{Choice, Draw, NoChoice},
    schedule::Chosen,
    ticket::Ticket,
};
use crate::lora::{AdapterSlot, SlotUse};
use std::{cmp::Ordering, ops::Range, sync::Arc, time::Instant};
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
    output: Option<Output>,
    /// Where its second text begins.
    pub(super) second_text: Option<usize>,
    /// Has seen the answer's tokens, however often their keys and values are computed.
    constraint: Option<Constrained>,
    counts: TokenCounts,
    /// Tokens that end it and are not sent; empty where the request ignores them.
    eos: Arc<[u32]>,
    pub(super) submitted: Instant,
    started: bool,
    /// Tokens of the prompt, but for the first, whose log-probabilities were sent; `None` where nobody wants them.
    judged: Option<usize>,
    ticket: Option<Ticket>,
    events: mpsc::UnboundedSender<Event>,
    over: bool,
}

/// What a row of logits is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Row {
    /// Judges the prompt's token after this position.
    Prompt(usize),
    /// Chooses a token, with so many guesses between it and the last known one.
    Next(usize),
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
        let (output, second_text) = (submission.output, submission.second_text);
        let Submission { prompt, adapters, sampling, constraint, priority, cache_salt, .. } =
            submission;
        let shares = adapters.parts().iter().map(|part| part.lease.terms.share);
        let share = shares.reduce(f32::min).unwrap_or(1.0);
        let adapters = adapters.active(&prompt);
        let options = sampling.options();
        let prefix = PrefixChain::new(adapters.iter().map(prefix_part));
        let prefix = match &cache_salt {
            Some(salt) => prefix.salted(salt),
            None => prefix,
        };
        Self {
            id,
            prompt_len: prompt.len(),
            computed: 0,
            granted: 0,
            draft: Draft::default(),
            block_table: Vec::new(),
            prefix,
            counts: TokenCounts::new(&prompt, options),
            judged: options.prompt_logprobs.map(|_| 0),
            eos: if options.ignore_eos { Arc::new([]) } else { eos.clone() },
            tokens: prompt,
            versions: versions(&adapters),
            slots: Vec::with_capacity(adapters.len()),
            adapters,
            priority,
            account: AccountId::default(),
            share,
            sampling,
            output,
            second_text,
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
        self.granted >= self.pending() && self.sampling.options().max_tokens > 0
    }

    /// What is wanted of it besides logits, once this step reaches its end.
    pub(super) fn wanted_output(&self) -> Option<Output> {
        self.output.filter(|_| self.granted >= self.pending())
    }

    /// Positions of the prompt whose logits are wanted and not told yet: each judges the token after it.
    fn unjudged(&self) -> Range<usize> {
        self.judged.map_or(0..0, |judged| judged..self.prompt_len - 1)
    }

    /// Whether logits of its prompt are wanted.
    pub(super) fn reads_prompt(&self) -> bool {
        !self.unjudged().is_empty()
    }

    /// How many of its tokens need no computing where the cache has their keys and values: at least one is
    /// computed, or there would be no logits.
    pub(super) fn skippable(&self) -> usize {
        if self.reads_prompt() { self.unjudged().start } else { self.tokens.len() - 1 }
    }

    /// How many tokens beyond the first `computed` a step may compute that has room for so many rows of prompts' logits.
    pub(super) fn most_with(&self, computed: usize, rows: usize) -> usize {
        let unjudged = self.unjudged();
        if unjudged.len() <= rows {
            return usize::MAX;
        }
        unjudged.start.saturating_sub(computed) + rows
    }

    /// The positions of the prompt whose logits this step needs.
    pub(super) fn prompt_rows(&self) -> Range<usize> {
        let unjudged = self.unjudged();
        let (start, end) = (unjudged.start, unjudged.end.min(self.computed + self.granted));
        start..end.max(start)
    }

    /// The positions whose logits this step needs, side by side.
    pub(super) fn logit_positions(&self) -> Range<usize> {
        let (prompt, end) = (self.prompt_rows(), self.computed + self.granted);
        match self.choices() {
            0 => prompt,
            choices if prompt.is_empty() => end - choices..end,
            _ => prompt.start..end,
        }
    }

    /// What each of those rows is for.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row> {
        self.prompt_rows().map(Row::Prompt).chain((0..self.choices()).map(Row::Next))
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
    /// None where a penalty, a constraint or a forbidden run depends on the guessed tokens themselves, none beyond the
    /// answer's end.
    pub(super) fn guess(&mut self, most: usize, limit: usize) -> usize {
        let answered = self.tokens.len() - self.prompt_len;
        let options = self.sampling.options();
        let left = (options.max_tokens - answered).min(limit - self.tokens.len());
        let single = options.bad_words.iter().all(|run| run.len() == 1);
        let is_free = self.counts.is_empty() && self.constraint.is_none() && single;
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
    /// Of the prompt the next token is known, and only judged.
    pub(super) fn draw<'a>(
        &'a self,
        (logits, best): (&'a [f32], Option<u32>),
        row: Row,
    ) -> Draw<'a> {
        let answer = &self.tokens[self.prompt_len..];
        let (given, ahead) = match row {
            Row::Prompt(position) => (self.tokens.get(position + 1).copied(), 0),
            Row::Next(ahead) => (None, ahead),
        };
        Draw {
            logits,
            best,
            given,
            params: &self.sampling,
            counts: &self.counts,
            constraint: self.constraint.as_ref(),
            eos: &self.eos,
            answer,
            answered: answer.len() + ahead,
        }
    }

    /// Tells what this step thought of the prompt's next tokens, of all of them or of none.
    pub(super) fn judge(&mut self, given: impl Iterator<Item = Chosen>) -> Result<(), NoChoice> {
        let (mut logprobs, mut refusal) = (Vec::new(), None);
        for chosen in given {
            match chosen {
                Ok(choice) => logprobs.extend(choice.logprobs),
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        if let Some(why) = refusal {
            return Err(why);
        }
        if let (Some(judged), false) = (&mut self.judged, logprobs.is_empty()) {
            *judged += logprobs.len();
            self.send(Event::Prompt { logprobs });
        }
        Ok(())
    }

    /// Tells the output that this step brought.
    pub(super) fn give(&mut self, values: Vec<f32>) {
        self.send(Event::Output { values });
    }

    /// Ends it where nothing is to be said and everything is read.
    pub(super) fn finish_reading(&mut self) {
        if self.pending() == 0 {
            self.finish(FinishReason::Length);
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

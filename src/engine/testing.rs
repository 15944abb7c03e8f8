//! What the room's unit tests share.
use super::{
    AdapterMix, Event, EventStream, Priority, SamplingOptions, SamplingParams, Submission,
    mix::ActivePart,
    sequence::{Arrival, Sequence},
    ticket::TicketOffice,
};
use crate::{
    adapter::{AdapterLease, AdapterTerms, AdapterVersion, VersionId},
    lora::LoraWeights,
};
use std::{sync::Arc, time::Instant};
use tokio::sync::mpsc;

/// A version whose content is its name.
pub(super) fn lease(name: &str) -> AdapterLease {
    version(name, LoraWeights::default())
}

/// The same, pinned.
pub(super) fn pinned(name: &str) -> AdapterLease {
    let (lease, terms) = (lease(name), AdapterTerms { pin: true, ..AdapterTerms::default() });
    AdapterLease::on_terms(lease.name.clone(), lease.version().clone(), Arc::new(terms))
}

/// All of it, which takes so many bytes.
pub(super) fn part(lease: AdapterLease, bytes: usize) -> ActivePart {
    ActivePart { lease, weight: 1.0, from: 0, bytes }
}

/// The same, begun by `invocation`.
pub(super) fn invoked(name: &str, invocation: &[u32]) -> AdapterLease {
    let mut weights = LoraWeights::default();
    weights.set_invocation(invocation);
    version(name, weights)
}

fn version(name: &str, weights: LoraWeights) -> AdapterLease {
    let (name, id) = (name.parse().expect("a valid name"), VersionId::of(&[name.as_bytes()]));
    AdapterLease::new(name, Arc::new(AdapterVersion { id, weights }))
}

/// A prompt as it comes in.
pub(super) fn arrival(
    prompt: Vec<u32>,
    adapters: AdapterMix,
    max_tokens: usize,
) -> (Arrival, EventStream) {
    arrival_of(prompt, adapters, SamplingOptions { max_tokens, ..Default::default() })
}

/// The same with the prompt judged.
pub(super) fn judged_arrival(
    prompt: Vec<u32>,
    adapters: AdapterMix,
    max_tokens: usize,
) -> (Arrival, EventStream) {
    let options = SamplingOptions { max_tokens, prompt_logprobs: Some(0), ..Default::default() };
    arrival_of(prompt, adapters, options)
}

fn arrival_of(
    prompt: Vec<u32>,
    adapters: AdapterMix,
    options: SamplingOptions,
) -> (Arrival, EventStream) {
    let options = SamplingOptions { temperature: 0.0, ..options };
    let sampling = SamplingParams::new(options, usize::MAX, 0).expect("in range");
    let (events, stream) = mpsc::unbounded_channel();
    let priority = Priority::Normal;
    let (constraint, cache_salt) = (None, None);
    let submission = Submission {
        prompt,
        adapters,
        sampling,
        output: None,
        second_text: None,
        constraint,
        cache_salt,
        priority,
    };
    let ticket = TicketOffice::new(1).take().expect("a free place");
    (Arrival { submission, events, ticket, at: Instant::now() }, stream)
}

/// A short sequence that nothing is known of.
pub(super) fn sequence(id: u64, adapters: AdapterMix) -> (Sequence, EventStream) {
    let (arrival, stream) = arrival(vec![1, 2, 3], adapters, 4);
    let eos: Arc<[u32]> = Arc::new([]);
    (Sequence::new(id, arrival, &eos), stream)
}

/// Everything that has been said so far.
pub(super) fn said(stream: &mut EventStream) -> Vec<Event> {
    std::iter::from_fn(|| stream.try_recv().ok()).collect()
}

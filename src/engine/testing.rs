//! What the room's unit tests share.
use super::{
    Event, EventStream, SamplingOptions, SamplingParams, Submission,
    sequence::{Arrival, Sequence},
    ticket::TicketOffice,
};
use crate::{
    adapter::{AdapterLease, AdapterVersion, VersionId},
    lora::LoraWeights,
};
use std::{sync::Arc, time::Instant};
use tokio::sync::mpsc;

/// A version whose content is its name.
pub(super) fn lease(name: &str) -> AdapterLease {
    let version = AdapterVersion {
        name: name.parse().expect("a valid name"),
        id: VersionId::of(&[name.as_bytes()]),
        weights: LoraWeights::default(),
    };
    AdapterLease::new(Arc::new(version))
}

/// A prompt as it comes in.
pub(super) fn arrival(
    prompt: Vec<u32>,
    adapter: Option<AdapterLease>,
    max_tokens: usize,
) -> (Arrival, EventStream) {
    let options = SamplingOptions { temperature: 0.0, max_tokens, ..Default::default() };
    let sampling = SamplingParams::new(options, usize::MAX, 0).expect("in range");
    let (events, stream) = mpsc::unbounded_channel();
    let submission = Submission { prompt, adapter, sampling };
    let ticket = TicketOffice::new(1).take().expect("a free place");
    (Arrival { submission, events, ticket, at: Instant::now() }, stream)
}

/// A short sequence that nothing is known of.
pub(super) fn sequence(id: u64, adapter: Option<AdapterLease>) -> (Sequence, EventStream) {
    let (arrival, stream) = arrival(vec![1, 2, 3], adapter, 4);
    let eos: Arc<[u32]> = Arc::new([]);
    (Sequence::new(id, arrival, &eos), stream)
}

/// Everything that has been said so far.
pub(super) fn said(stream: &mut EventStream) -> Vec<Event> {
    std::iter::from_fn(|| stream.try_recv().ok()).collect()
}

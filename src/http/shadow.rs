//! Answers that nobody gets: a shadow's, computed when there is time and compared with the real one's.
use super::{
    AppState,
    fan_out::Answers,
    split::{Split, is_there},
};
use crate::{
    adapter::alias::Target,
    generation::{GenerateEvent, GenerateRequest, Priority, WeightedAdapter},
};
use sha2::{Digest, Sha256};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// Shadows at one time; a request beyond has none.
const MAX_SHADOWS: usize = 8;

/// The shadows of this server. Clones are handles to the same ones.
#[derive(Clone, Debug)]
pub(super) struct Shadows {
    places: Arc<Semaphore>,
    ended: Arc<watch::Sender<bool>>,
}

/// A request for a shadow, made before the real one goes its way.
pub(super) struct Prepared {
    alias: String,
    requests: Vec<GenerateRequest>,
    place: OwnedSemaphorePermit,
}

/// A place for a shadow.
pub(super) struct Reserved {
    pub(super) alias: String,
    target: Target,
    pub(super) place: OwnedSemaphorePermit,
}

impl Reserved {
    /// What changes the base in it.
    pub(super) fn adapters(&self) -> Vec<WeightedAdapter> {
        match &self.target {
            Target::Base => Vec::new(),
            Target::Adapter(adapter) => {
                let (adapter, field) = (adapter.clone(), "shadow".into());
                vec![WeightedAdapter { adapter, weight: 1.0, field }]
            }
        }
    }
}

impl Shadows {
    pub(super) fn new() -> Self {
        let (places, ended) = (Semaphore::new(MAX_SHADOWS), watch::Sender::new(false));
        Self { places: Arc::new(places), ended: Arc::new(ended) }
    }

    /// None runs on, and none begins.
    pub(super) fn end(&self) {
        self.places.close();
        self.ended.send_replace(true);
    }

    /// A place for the shadow of a request, where there is one and time for it.
    pub(super) fn reserve(&self, app: &AppState, split: &Split) -> Option<Reserved> {
        let (alias, target) = split.shadow()?;
        let (alias, target) = (alias.name().to_string(), target.clone());
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        // Its place in the queue could be the last one, which is somebody's.
        let has_time = app.generator.snapshot().waiting == 0;
        let Some(place) = place.filter(|_| has_time && is_there(&app.registry, &target)) else {
            app.metrics.shadowed(&alias, "skipped");
            return None;
        };
        Some(Reserved { alias, target, place })
    }

    /// Becomes true when none may run on.
    pub(super) fn ending(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// The same requests for the shadow, where there is one and time for it.
    pub(super) fn prepare(
        &self,
        app: &AppState,
        split: &Split,
        requests: &[GenerateRequest],
    ) -> Option<Prepared> {
        let reserved = self.reserve(app, split)?;
        let of_shadow = |request: &GenerateRequest| {
            let mut request = GenerateRequest { adapters: reserved.adapters(), ..request.clone() };
            request.sampling.logprobs = None;
            request.sampling.prompt_logprobs = None;
            request.priority = Priority::Shadow;
            request
        };
        let requests = requests.iter().map(of_shadow).collect();
        let Reserved { alias, place, .. } = reserved;
        Some(Prepared { alias, requests, place })
    }

    /// Lets the shadow answer, and gives what is to be told of the real answer: `count` texts, asked for at `begun`.
    pub(super) fn start(
        &self,
        app: &AppState,
        prepared: Prepared,
        (count, begun): (usize, Instant),
    ) -> Mirror {
        let Prepared { alias, requests, place } = prepared;
        let is_greedy = requests.iter().all(|request| request.sampling.temperature == 0.0);
        let (tell, told) = oneshot::channel();
        let (app, ended) = (app.clone(), self.ending());
        tokio::spawn(async move {
            let _place = place;
            let answer = answer(&app, requests, count);
            if let Some((real, shadow)) = both(&app, &alias, ended, (told, answer)).await {
                compare(&app, &alias, is_greedy, (&real, &shadow));
            }
        });
        Mirror { seen: Seen::new(count, begun), tell }
    }
}

/// The real answer, once it is told, and the shadow's; nothing where either did not come to its end, or shadows may not run
/// on. How the shadow ended is counted.
pub(super) async fn both<R, S>(
    app: &AppState,
    alias: &str,
    mut ended: watch::Receiver<bool>,
    (told, answer): (oneshot::Receiver<R>, impl Future<Output = Option<S>>),
) -> Option<(R, S)> {
    let outcome = tokio::select! {
        outcome = answer => outcome,
        _ = ended.wait_for(|ended| *ended) => {
            app.metrics.shadowed(alias, "cancelled");
            return None;
        }
    };
    app.metrics.shadowed(alias, if outcome.is_some() { "done" } else { "failed" });
    let shadow = outcome?;
    tokio::select! {
        real = told => Some((real.ok()?, shadow)),
        _ = ended.wait_for(|ended| *ended) => None,
    }
}

fn compare(app: &AppState, alias: &str, is_greedy: bool, (real, shadow): (&Told, &Told)) {
    if is_greedy {
        app.metrics.shadow_compared(alias, real.texts == shadow.texts);
    }
    for (of, told) in [("answer", real), ("shadow", shadow)] {
        if let Some(first) = told.first {
            app.metrics.shadow_first_token(alias, of, first);
        }
    }
}

/// The shadow's whole answer; `None` when it fails.
async fn answer(app: &AppState, requests: Vec<GenerateRequest>, count: usize) -> Option<Told> {
    let mut seen = Seen::new(count, Instant::now());
    let mut answers = Answers::start(app, requests, Split::default()).await.ok()?;
    while let Some(event) = answers.next().await {
        seen.event(&event.ok()?);
    }
    Some(seen.told())
}

/// The real answer as it comes, for the comparison.
pub(super) struct Mirror {
    seen: Seen,
    tell: oneshot::Sender<Told>,
}

impl Mirror {
    /// One more event of it.
    pub(super) fn event(&mut self, event: &GenerateEvent) {
        self.seen.event(event);
    }

    /// It is whole.
    pub(super) fn end(self) {
        // The shadow may have failed, or been cancelled.
        let _ = self.tell.send(self.seen.told());
    }
}

/// An answer, without keeping its texts.
struct Seen {
    texts: Vec<Sha256>,
    begun: Instant,
    first: Option<Duration>,
}

/// What there was to see.
struct Told {
    texts: Vec<[u8; 32]>,
    first: Option<Duration>,
}

impl Seen {
    fn new(count: usize, begun: Instant) -> Self {
        Self { texts: vec![Sha256::new(); count], begun, first: None }
    }

    fn event(&mut self, event: &GenerateEvent) {
        let GenerateEvent::Delta { index, text, tokens } = event else { return };
        if self.first.is_none() && !tokens.is_empty() {
            self.first = Some(self.begun.elapsed());
        }
        if let Some(sum) = self.texts.get_mut(*index) {
            sum.update(text);
        }
    }

    fn told(self) -> Told {
        let texts = self.texts.into_iter().map(|sum| sum.finalize().into());
        Told { texts: texts.collect(), first: self.first }
    }
}

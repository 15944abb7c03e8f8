//! One event for every request to the model, and the spans of its trace: who asked what for how much, how long it took, and how
//! it ended. Never what was said.
use super::{
    ApiError, AppState,
    auth::Caller,
    connections::held,
    reading::Cost,
    request_id,
    spans::{self, Operation},
};
use crate::{
    generation::{FinishedBecause, GenerateEvent, GenerateRequest, ServedAdapter},
    telemetry::TraceParent,
};
use axum::{
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// Of a client's own words, this much is shown.
const SHOWN: usize = 128;

/// nginx's: the client has left before there was an answer.
const CLIENT_LEFT: u16 = 499;

tokio::task_local! {
    /// The record of the request that the present task works on.
    static CURRENT: Access;
}

/// What is known of a request so far. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Access(Arc<Mutex<Record>>);

/// See [`Access`].
#[derive(Debug)]
pub(super) struct Record {
    pub(super) operation: Operation,
    pub(super) route: String,
    pub(super) request_id: String,
    pub(super) parent: TraceParent,
    pub(super) begun: Instant,
    pub(super) began: SystemTime,
    /// The digits that the event log calls a key by.
    pub(super) key: Option<String>,
    /// As the client wrote it, cut.
    pub(super) model: Option<String>,
    pub(super) adapters: Vec<ServedAdapter>,
    pub(super) asked: Option<Asked>,
    pub(super) prompt_tokens: usize,
    pub(super) cached_tokens: usize,
    pub(super) completion_tokens: usize,
    pub(super) queued: Option<Duration>,
    pub(super) first_token: Option<Duration>,
    pub(super) reasons: BTreeSet<&'static str>,
    /// A failure's code.
    pub(super) error: Option<String>,
    pub(super) status: u16,
    pub(super) is_stream: bool,
    /// Whether every answer has ended, well or not.
    pub(super) is_over: bool,
}

/// What a request asks for, of what may be told.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) answers: usize,
    pub(super) max_tokens: Option<usize>,
    pub(super) temperature: f32,
    pub(super) top_p: f32,
    pub(super) top_k: usize,
    pub(super) seed: Option<u64>,
    pub(super) presence_penalty: f32,
    pub(super) frequency_penalty: f32,
}

/// Tells of the request when it is dropped, however that comes.
struct Telling {
    access: Access,
    app: AppState,
}

/// The layer of routes that ask the model.
pub(super) async fn tell(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let access = Access::of(&request);
    let telling = Telling { access: access.clone(), app };
    let response = CURRENT.scope(access.clone(), next.run(request)).await;
    access.answered(&response);
    held(response, telling)
}

impl Drop for Telling {
    fn drop(&mut self) {
        let mut record = self.access.lock();
        if !record.is_over {
            record.reasons.insert("abort");
        }
        let trace_id = spans::record(&self.app, &record);
        record.log(trace_id.as_deref());
    }
}

impl Access {
    /// The record of the request that this task works on; what nobody asked for from outside has none.
    pub(super) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    fn of(request: &Request) -> Self {
        let headers = request.headers();
        let route = request.extensions().get::<MatchedPath>();
        let route = route.map_or("none", MatchedPath::as_str).to_owned();
        Self(Arc::new(Mutex::new(Record {
            operation: Operation::of(&route),
            route,
            request_id: request_id::of(headers).to_owned(),
            parent: spans::parent(headers),
            begun: Instant::now(),
            began: SystemTime::now(),
            key: None,
            model: None,
            adapters: Vec::new(),
            asked: None,
            prompt_tokens: 0,
            cached_tokens: 0,
            completion_tokens: 0,
            queued: None,
            first_token: None,
            reasons: BTreeSet::new(),
            error: None,
            status: CLIENT_LEFT,
            is_stream: false,
            is_over: false,
        })))
    }

    /// Who asks, and for which model.
    pub(super) fn asks(&self, caller: Caller, model: &str) {
        let mut record = self.lock();
        record.key = caller.key_id();
        record.model = Some(model.chars().take(SHOWN).collect());
    }

    /// The answers to these requests are about to be made.
    pub(super) fn starts(&self, requests: &[GenerateRequest]) {
        let Some(request) = requests.first() else { return };
        let sampling = &request.sampling;
        self.lock().asked = Some(Asked {
            answers: request.n,
            max_tokens: request.max_tokens,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            seed: sampling.seed,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
        });
    }

    /// The answers to one prompt are on their way.
    pub(super) fn started(&self, prompt_tokens: usize, served: &[ServedAdapter]) {
        let mut record = self.lock();
        record.prompt_tokens += prompt_tokens;
        record.adapters = served.to_vec();
    }

    /// Something happened to one of the answers.
    pub(super) fn event(&self, event: &GenerateEvent) {
        let mut record = self.lock();
        match event {
            GenerateEvent::Prompt { .. } => {}
            GenerateEvent::Delta { tokens, .. } => {
                let elapsed = record.begun.elapsed();
                record.first_token.get_or_insert(elapsed);
                record.completion_tokens += tokens.len();
            }
            GenerateEvent::Finished { index, because, usage } => {
                let reason = match because {
                    FinishedBecause::Stop(_) => "stop",
                    FinishedBecause::Length => "length",
                };
                record.reasons.insert(reason);
                let queued = record.queued.map_or(usage.queued, |most| most.max(usage.queued));
                record.queued = Some(queued);
                // All answers to a prompt found the same of it.
                let answers = record.asked.as_ref().map_or(1, |asked| asked.answers.max(1));
                if index % answers == 0 {
                    record.cached_tokens += usage.cached_tokens;
                }
            }
        }
    }

    /// Texts were read, and that was all.
    pub(super) fn read(&self, cost: Cost<'_>) {
        let mut record = self.lock();
        record.prompt_tokens = cost.tokens;
        record.adapters = cost.served.to_vec();
        record.queued = Some(cost.queued);
        record.reasons.insert("stop");
        record.is_over = true;
    }

    /// All answers have ended.
    pub(super) fn over(&self) {
        self.lock().is_over = true;
    }

    /// They ended with this.
    pub(super) fn failed(&self, error: &ApiError) {
        let mut record = self.lock();
        record.is_over = true;
        record.reasons.insert("error");
        record.error = Some(error.reason().to_owned());
    }

    /// The head of the answer is there; that of a failure says what it was.
    fn answered(&self, response: &Response) {
        if let Some(error) = response.extensions().get::<ApiError>() {
            self.failed(error);
        }
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let mut record = self.lock();
        record.status = response.status().as_u16();
        record.is_stream =
            content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// Names and versions of the adapters that answered.
    pub(super) fn served(&self) -> (Option<String>, Option<String>) {
        let joined = |shown: fn(&ServedAdapter) -> String| {
            let each: Vec<_> = self.adapters.iter().map(shown).collect();
            Some(each.join("+")).filter(|text| !text.is_empty())
        };
        (joined(|one| one.name.to_string()), joined(|one| one.version.to_string()))
    }

    /// `stop`, `length`, `abort` or `error`; several answers may have ended for several of them.
    pub(super) fn finish_reason(&self) -> String {
        self.reasons.iter().copied().collect::<Vec<_>>().join("+")
    }

    fn log(&self, trace_id: Option<&str>) {
        let milliseconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let (adapter, version) = self.served();
        tracing::info!(
            target: "lorad::access",
            request_id = self.request_id,
            trace_id,
            route = self.route,
            operation = self.operation.name(),
            key = self.key,
            model = self.model,
            adapter,
            version,
            stream = self.is_stream,
            status = self.status,
            finish_reason = self.finish_reason(),
            error = self.error,
            prompt_tokens = self.prompt_tokens,
            cached_tokens = self.cached_tokens,
            completion_tokens = self.completion_tokens,
            queue_ms = self.queued.map(milliseconds),
            ttft_ms = self.first_token.map(milliseconds),
            e2e_ms = milliseconds(self.begun.elapsed()),
            "{}",
            if self.operation.generates() { "generated" } else { "read" }
        );
    }
}

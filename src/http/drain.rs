//! Ending without losing an answer: who still runs, and until when.
use super::{ApiError, AppState, connections::held};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::watch;

/// What the server does with requests.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
enum Stage {
    /// Takes them.
    #[default]
    Serving,
    /// Takes no new ones; those that run go on.
    Draining,
    /// Ends those that run.
    Ending,
}

/// The stage of the server, and its running requests. Clones share both.
#[derive(Clone, Debug, Default)]
pub(super) struct Drain {
    stage: watch::Sender<Stage>,
    running: watch::Sender<usize>,
}

/// A running request: counted until it is dropped.
#[derive(Debug)]
pub(super) struct Running(watch::Sender<usize>);

impl Drain {
    /// No new requests from here on.
    pub(super) fn begin(&self) {
        self.reach(Stage::Draining);
    }

    /// Those that still run end now.
    pub(super) fn end(&self) {
        self.reach(Stage::Ending);
    }

    /// Whether new requests are refused.
    pub(super) fn has_begun(&self) -> bool {
        *self.stage.borrow() > Stage::Serving
    }

    /// Requests that run.
    pub(super) fn running(&self) -> usize {
        *self.running.borrow()
    }

    /// Until none runs.
    pub(super) async fn idle(&self) {
        // The sender is this one, so it cannot be gone.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// Until running requests shall end.
    pub(super) async fn ending(&self) {
        let _ = self.stage.subscribe().wait_for(|stage| *stage == Stage::Ending).await;
    }

    /// A request's place; `None` for one that comes too late.
    ///
    /// It counts before it looks: whoever waits for the last one sees it, or it sees that it is late.
    fn enter(&self) -> Option<Running> {
        self.running.send_modify(|running| *running += 1);
        let running = Running(self.running.clone());
        (!self.has_begun()).then_some(running)
    }

    fn reach(&self, stage: Stage) {
        self.stage.send_if_modified(|now| {
            let is_later = stage > *now;
            *now = stage.max(*now);
            is_later
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

/// The layer of every route but the probes: 503 for what comes too late, and for what takes too long then.
pub(super) async fn until_the_end(
    State(app): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let Some(running) = app.drain.enter() else {
        return ApiError::draining().into_response();
    };
    tokio::select! {
        biased;
        response = next.run(request) => held(response, running),
        () = app.drain.ending() => ApiError::cut_off().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn whoever_came_in_time_is_waited_for_and_nobody_comes_late() {
        let drain = Drain::default();
        let first = drain.enter().expect("in time");
        drain.begin();
        assert!(drain.enter().is_none());
        assert_eq!(drain.running(), 1, "a refused one runs no more");
        let idle = tokio::time::timeout(Duration::from_millis(10), drain.idle());
        idle.await.expect_err("one still runs");
        drop(first);
        drain.idle().await;
    }

    #[tokio::test]
    async fn stages_only_go_on() {
        let drain = Drain::default();
        assert!(!drain.has_begun());
        drain.end();
        drain.begin();
        drain.ending().await;
        assert!(drain.has_begun());
    }
}

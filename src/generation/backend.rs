//! What the generator needs of the adapters and the engine: a seam, so that tests can play both.
use crate::{
    adapter::{AdapterError, AdapterLease, AdapterRef},
    engine::{EngineError, EngineSnapshot, EventStream, Submission},
};
use futures_util::future::BoxFuture;
use std::time::Duration;

/// Leases adapters and runs sequences.
pub trait Backend: Send + Sync + 'static {
    /// Finds the version `wanted` names and pins it; a cold version is read first.
    fn lease<'a>(
        &'a self,
        wanted: &'a AdapterRef,
    ) -> BoxFuture<'a, Result<AdapterLease, AdapterError>>;

    /// Queues one sequence; dropping the stream cancels it.
    ///
    /// # Errors
    /// When the queue is full, the sequence can never fit, or the engine has stopped.
    fn submit(&self, submission: Submission) -> Result<EventStream, EngineError>;

    /// What the engine did last.
    fn snapshot(&self) -> EngineSnapshot;

    /// Whether the engine still takes submissions.
    fn is_alive(&self) -> bool;

    /// How long its present step has taken so far; one without steps takes no time.
    fn step_time(&self) -> Duration {
        Duration::ZERO
    }
}

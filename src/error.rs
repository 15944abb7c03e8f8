//! What a failure means to the caller; every room's error says which kind it is.

/// The seven ways a request can fail. `http::error` maps each to one status code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorKind {
    /// 400: the request is malformed or a parameter is out of range.
    InvalidRequest,
    /// 404: no such adapter, version or model.
    NotFound,
    /// 409: the name is taken, or the expected version is not the current one.
    Conflict,
    /// 413: the upload or the prompt is over a limit.
    TooLarge,
    /// 429: the queue is full; the caller may try again.
    Overloaded,
    /// 503: the engine is starting, draining or dead.
    Unavailable,
    /// 500: our fault. The cause is logged, and shown only where [`Classified::is_public`] says so.
    Internal,
}

/// An error that knows what it means to the caller.
pub trait Classified: std::error::Error {
    /// Which of the seven.
    fn kind(&self) -> ErrorKind;

    /// A stable, machine-readable name of the failure, `snake_case`.
    fn code(&self) -> &'static str;

    /// The request's field at fault, where there is one.
    fn param(&self) -> Option<&str> {
        None
    }

    /// Seconds after which the caller may try again, where they are known.
    fn retry_after(&self) -> Option<u64> {
        None
    }

    /// Whether its text is for the caller; that of an internal failure is not, unless it says what to do.
    fn is_public(&self) -> bool {
        self.kind() != ErrorKind::Internal
    }
}

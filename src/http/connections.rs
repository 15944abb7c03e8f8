//! How many connections are open at once.
use axum::{Extension, middleware::AddExtension};
use axum_server::accept::Accept;
use std::{
    future::{Ready, ready},
    io,
    sync::Arc,
};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::Layer;

/// Accepts while there are places; a connection beyond them is closed at once.
///
/// Small writes go out as they come: a token must not wait for the next one.
#[derive(Clone, Debug)]
pub(super) struct LimitedAcceptor(Arc<Semaphore>);

impl LimitedAcceptor {
    /// Room for `most` connections.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))))
    }
}

impl<S> Accept<TcpStream, S> for LimitedAcceptor {
    type Stream = TcpStream;
    /// Lives as long as its connection, and the place with it.
    type Service = AddExtension<S, Arc<OwnedSemaphorePermit>>;
    type Future = Ready<io::Result<(TcpStream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else {
            return ready(Err(io::Error::other("every connection is taken")));
        };
        let service = Extension(Arc::new(place)).layer(service);
        ready(stream.set_nodelay(true).map(|()| (stream, service)))
    }
}

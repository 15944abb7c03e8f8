//! How many connections are open at once.
use axum::{Extension, middleware::AddExtension};
use axum_server::accept::Accept;
use std::{
    future::{Ready, ready},
    io,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::Layer;

/// No network is so fast that less would do.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// Accepts while there are places; a connection beyond them is closed at once.
///
/// Small writes go out as they come: a token must not wait for the next one. A peer that takes nothing
/// for `write_timeout` loses its connection, where the system can tell.
#[derive(Clone, Debug)]
pub(super) struct LimitedAcceptor {
    places: Arc<Semaphore>,
    write_timeout: Duration,
}

impl LimitedAcceptor {
    /// Room for `most` connections.
    pub(super) fn new(most: usize, write_timeout: Duration) -> Self {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { places, write_timeout }
    }

    fn set_up(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        // hyper's buffer hides a peer that does not read from the stream's own timeout; the system sees it.
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(stream)
            .set_tcp_user_timeout(Some(self.write_timeout.max(LEAST_PATIENCE)))?;
        Ok(())
    }
}

impl<S> Accept<TcpStream, S> for LimitedAcceptor {
    type Stream = TcpStream;
    /// Lives as long as its connection, and the place with it.
    type Service = AddExtension<S, Arc<OwnedSemaphorePermit>>;
    type Future = Ready<io::Result<(TcpStream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return ready(Err(io::Error::other("every connection is taken")));
        };
        let service = Extension(Arc::new(place)).layer(service);
        ready(self.set_up(&stream).map(|()| (stream, service)))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_connection_has_the_write_timeout_and_sends_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let _client = TcpStream::connect(address).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        let acceptor = LimitedAcceptor::new(1, Duration::from_secs(30));
        let (stream, ()) = acceptor.accept(stream, ()).await.map(|(s, _)| (s, ())).expect("room");
        let timeout = socket2::SockRef::from(&stream).tcp_user_timeout().expect("an option");
        assert_eq!(timeout, Some(Duration::from_secs(30)));
        assert!(stream.nodelay().expect("an option"));
    }
}

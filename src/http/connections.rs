//! How many connections are open at once, and which of them are let go.
use super::tls::Tls;
use axum::{
    Extension,
    body::Body,
    extract::Request,
    http::header,
    middleware::{AddExtension, Next},
    response::Response,
};
use axum_server::{accept::Accept, tls_rustls::RustlsAcceptor};
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tower::Layer;

/// No network is so fast that less would do.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// How long connections may do nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// To finish a TLS handshake.
    pub(super) handshake: Duration,
    /// To take what lies ready.
    pub(super) write: Duration,
    /// To send the next request.
    pub(super) idle: Duration,
}

/// Accepts while there are places; a connection beyond them is closed at once.
///
/// Small writes go out as they come: a token must not wait for the next one. A peer that takes nothing
/// for the write timeout loses its connection, where the system can tell; so does one that asks for nothing.
#[derive(Clone)]
pub(super) struct Acceptor {
    places: Arc<Semaphore>,
    patience: Patience,
    tls: Option<Tls>,
}

impl Acceptor {
    /// Room for `most` connections.
    pub(super) fn new(most: usize, patience: Patience, tls: Option<Tls>) -> Self {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { places, patience, tls }
    }

    fn seat(&self, stream: &TcpStream) -> io::Result<Arc<Seat>> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| io::Error::other("every connection is taken"))?;
        stream.set_nodelay(true)?;
        // hyper's buffer hides a peer that does not read from the stream's own timeout; the system sees it.
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(stream)
            .set_tcp_user_timeout(Some(self.patience.write.max(LEAST_PATIENCE)))?;
        Ok(Arc::new(Seat::new(place)))
    }
}

/// Plain, or behind TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl<S: Send + 'static> Accept<TcpStream, S> for Acceptor {
    type Stream = Watched;
    type Service = AddExtension<S, Arc<Seat>>;
    type Future = BoxFuture<'static, io::Result<(Watched, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let (seat, patience, tls) = (self.seat(&stream), self.patience, self.tls.clone());
        async move {
            let seat = seat?;
            let stream: Box<dyn Stream> = match tls {
                None => Box::new(stream),
                Some(tls) => {
                    let acceptor = RustlsAcceptor::new(tls.config());
                    let acceptor = acceptor.handshake_timeout(patience.handshake);
                    Box::new(acceptor.accept(stream, ()).await?.0)
                }
            };
            let service = Extension(Arc::clone(&seat)).layer(service);
            Ok((Watched::new(stream, seat, patience.idle), service))
        }
        .boxed()
    }
}

/// An open connection: its place among all, and what it does.
#[derive(Debug)]
pub(super) struct Seat {
    _place: OwnedSemaphorePermit,
    requests: AtomicUsize,
    since: Mutex<Instant>,
}

/// A request of a connection, until its answer is sent or dropped.
#[derive(Debug)]
struct Asking(Arc<Seat>);

impl Seat {
    fn new(place: OwnedSemaphorePermit) -> Self {
        Self { _place: place, requests: AtomicUsize::new(0), since: Mutex::new(Instant::now()) }
    }

    fn ask(self: &Arc<Self>) -> Asking {
        self.requests.fetch_add(1, Ordering::SeqCst);
        Asking(Arc::clone(self))
    }

    /// When it will have done nothing for `limit`.
    fn deadline(&self, limit: Duration) -> Instant {
        let since = match self.requests.load(Ordering::SeqCst) {
            0 => *self.since.lock().unwrap_or_else(PoisonError::into_inner),
            _ => Instant::now(),
        };
        since + limit
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.requests.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The outermost layer: a connection with a request is not idle.
pub(super) async fn seated(request: Request, next: Next) -> Response {
    let asking = request.extensions().get::<Arc<Seat>>().map(Seat::ask);
    held(next.run(request).await, asking)
}

/// Keeps `what` for as long as the answer is on its way: a stream's work begins with its head.
pub(super) fn held(response: Response, what: impl Send + 'static) -> Response {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if !content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream")) {
        return response;
    }
    let (head, body) = response.into_parts();
    let pieces = body.into_data_stream().map(move |piece| {
        let _held = &what;
        piece
    });
    Response::from_parts(head, Body::from_stream(pieces))
}

/// A connection that ends when it has been idle for too long. HTTP/1.1 has a timer of its own for that, HTTP/2 has
/// none: its pings only tell that somebody is there.
pub(super) struct Watched {
    stream: Box<dyn Stream>,
    seat: Arc<Seat>,
    limit: Duration,
    alarm: Pin<Box<Sleep>>,
}

impl Watched {
    fn new(stream: Box<dyn Stream>, seat: Arc<Seat>, limit: Duration) -> Self {
        Self { stream, seat, limit, alarm: Box::pin(sleep(limit)) }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, into) {
            return Poll::Ready(read);
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let deadline = self.seat.deadline(self.limit);
            if deadline <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    const PATIENCE: Patience = Patience {
        handshake: Duration::from_secs(1),
        write: Duration::from_secs(30),
        idle: Duration::from_millis(50),
    };

    async fn accepted() -> (TcpStream, Watched) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        #[cfg(target_os = "linux")]
        let fd = std::os::fd::AsFd::as_fd(&stream).try_clone_to_owned().expect("a descriptor");
        let accepted = Acceptor::new(1, PATIENCE, None).accept(stream, ()).await;
        #[cfg(target_os = "linux")]
        {
            let timeout = socket2::SockRef::from(&fd).tcp_user_timeout().expect("an option");
            assert_eq!(timeout, Some(PATIENCE.write));
            assert!(socket2::SockRef::from(&fd).tcp_nodelay().expect("an option"));
        }
        (client, accepted.map(|(stream, _)| stream).expect("room"))
    }

    #[tokio::test]
    async fn a_connection_has_the_write_timeout_and_sends_at_once() {
        accepted().await;
    }

    #[tokio::test]
    async fn a_connection_without_a_request_ends_and_one_with_a_request_does_not() {
        let (_client, mut connection) = accepted().await;
        let asking = connection.seat.ask();
        let (seat, mut buffer) = (Arc::clone(&connection.seat), [0; 1]);
        let waiting = tokio::time::timeout(PATIENCE.idle * 4, connection.read(&mut buffer));
        waiting.await.expect_err("a request runs");
        drop(asking);
        let ended = connection.read(&mut buffer).await.expect_err("nobody asks");
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert!(seat.deadline(PATIENCE.idle) <= Instant::now());
    }
}

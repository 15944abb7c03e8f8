//! The layer of a guarded route: in with a name tag, or out.
use super::{
    Caller,
    keys::{Rank, hash},
};
use crate::http::{ApiError, AppState};
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::time::timeout;

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Nothing.
    Open,
    /// An API key, where there are any, or a key of some adapter.
    Key,
    /// An admin key; where there is none, a connection from this machine.
    Admin,
}

/// Of a refused request's body, this many bytes are read, for so long.
const READ_OUT: usize = 2 << 20;
const READ_OUT_FOR: Duration = Duration::from_secs(1);

/// Proxies say with these that somebody else is behind them.
const FORWARDED: [&str; 6] =
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"];

pub(in crate::http) async fn guard(
    State((app, access)): State<(AppState, Access)>,
    mut request: Request,
    next: Next,
) -> Response {
    match admit(&app, access, &request) {
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Ok(None) => next.run(request).await,
        Err(error) => {
            read_out(request).await;
            error.into_response()
        }
    }
}

/// Reads what a refused client still sends, within limits: to close a connection on bytes that nobody has read resets it,
/// and the answer may be lost with it. Who waits to be asked for a body (`Expect`) is not asked.
async fn read_out(request: Request) {
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let mut pieces = request.into_body().into_data_stream();
    let reading = async {
        let mut left = READ_OUT;
        while left > 0
            && let Some(Ok(piece)) = pieces.next().await
        {
            left = left.saturating_sub(piece.len());
        }
    };
    // Too late or too much is the client's loss.
    let _ = timeout(READ_OUT_FOR, reading).await;
}

/// Who comes in; on open routes nobody is asked.
fn admit(app: &AppState, access: Access, request: &Request) -> Result<Option<Caller>, ApiError> {
    if access == Access::Open {
        return Ok(None);
    }
    let key = bearer(request.headers()).filter(|key| !key.is_empty()).map(hash);
    match (app.keys.rank(key.as_ref()), access, key) {
        (Rank::Admin, _, Some(key)) => Ok(Some(Caller::Admin(key))),
        (_, Access::Admin, _) if app.keys.has_admin() => Err(ApiError::unauthorized()),
        (_, Access::Admin, _) if is_local(request) => Ok(Some(Caller::Local)),
        (_, Access::Admin, _) => Err(ApiError::admin_needs_key()),
        (Rank::Client, ..) => Ok(Some(Caller::Client(key))),
        (_, _, Some(key)) if app.registry.knows_key(&key) => Ok(Some(Caller::Guest(key))),
        _ => Err(ApiError::unauthorized()),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Whether it was sent on this machine, to this machine, by nobody in between.
///
/// A page from elsewhere may have given its name this machine's address; what it sends then asks for that name.
fn is_local(request: &Request) -> bool {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let from_here = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
    from_here
        && !FORWARDED.iter().any(|name| request.headers().contains_key(*name))
        && asked_host(request).is_none_or(is_this_machine)
}

fn asked_host(request: &Request) -> Option<&str> {
    let header = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    request.uri().host().or(header)
}

/// Addresses cannot be given to others, names can.
fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[');
    let host = match host.split_once(']') {
        Some((address, _)) => address,
        None => host
            .rsplit_once(':')
            .filter(|(name, _)| !name.contains(':'))
            .map_or(host, |(name, _)| name),
    };
    let host = host.to_ascii_lowercase();
    host.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http::HeaderValue};
    use futures_util::stream;
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    #[test]
    fn a_bearer_key_is_read_from_its_header_alone() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().expect("a header"));
            bearer(&headers).map(ToOwned::to_owned)
        };
        assert_eq!(read("Bearer k"), Some("k".into()));
        assert_eq!(read("bearer  k "), Some("k".into()));
        assert_eq!(read("Basic k"), None);
        assert_eq!(read("k"), None);
    }

    /// How many of 64 pieces of 64 KB are read.
    async fn read_of(expects: bool) -> usize {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let pieces = stream::iter(0..64).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(vec![0_u8; 1 << 16])
        });
        let mut request = Request::new(Body::from_stream(pieces));
        if expects {
            request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        }
        read_out(request).await;
        taken.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn what_a_refused_client_sends_is_read_within_limits() {
        assert_eq!(read_of(false).await, READ_OUT / (1 << 16));
        assert_eq!(read_of(true).await, 0);
        let silent = Body::from_stream(stream::pending::<Result<Vec<u8>, Infallible>>());
        let waited = timeout(2 * READ_OUT_FOR, read_out(Request::new(silent)));
        waited.await.expect("nobody is waited for longer");
    }

    fn request(peer: Option<&str>, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::new(Body::empty());
        if let Some(peer) = peer {
            let peer: SocketAddr = peer.parse().expect("an address");
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        for (name, value) in headers {
            let name: axum::http::HeaderName = name.parse().expect("a name");
            request.headers_mut().insert(name, value.parse().expect("a value"));
        }
        request
    }

    #[test]
    fn only_a_loopback_peer_with_nobody_behind_it_is_local() {
        for peer in ["127.0.0.1:9", "127.8.8.8:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
            assert!(is_local(&request(Some(peer), &[])), "{peer}");
            for forwarded in FORWARDED {
                assert!(!is_local(&request(Some(peer), &[(forwarded, "x")])), "{forwarded}");
            }
        }
        for peer in [None, Some("10.0.0.1:9"), Some("[fe80::1]:9"), Some("[::ffff:10.0.0.1]:9")] {
            assert!(!is_local(&request(peer, &[])), "{peer:?}");
        }
    }

    #[test]
    fn a_name_that_may_be_anybodys_is_not_this_machine() {
        let local = |host| is_local(&request(Some("127.0.0.1:9"), &[("host", host)]));
        for host in [
            "localhost",
            "LocalHost:80",
            "127.0.0.1:80",
            "0.0.0.0",
            "[::1]:80",
            "[::1]",
            "a.localhost",
        ] {
            assert!(local(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil", ""]
        {
            assert!(!local(host), "{host}");
        }
    }
}

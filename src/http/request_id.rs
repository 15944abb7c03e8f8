//! `X-Request-Id`: what a client calls its request, on every answer to it.
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken over, bytes.
const MAX_BYTES: usize = 128;

/// Takes the client's id, or makes one where there is none that can be shown, and puts it on the answer.
pub(super) async fn settle(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).filter(|id| is_sound(id)).cloned();
    let id = given.unwrap_or_else(fresh);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The id of a request behind [`settle`].
pub(super) fn of(headers: &HeaderMap) -> &str {
    headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

/// It goes into logs and headers as it is.
fn is_sound(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

fn fresh() -> HeaderValue {
    let id = Uuid::new_v4().simple().to_string();
    HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_can_be_shown() {
        let sound = |id: &[u8]| is_sound(&HeaderValue::from_bytes(id).expect("a value"));
        for id in ["a", "0af7651916cd43dd8448eb211c80319c", "req:1/2;x=\"y\"", &"a".repeat(128)] {
            assert!(sound(id.as_bytes()), "{id}");
        }
        for id in [&b""[..], b"a b", b"a\tb", &[0xff], "ü".as_bytes(), &[b'a'; 129]] {
            assert!(!sound(id), "{id:?}");
        }
        assert_eq!(fresh().len(), 32);
        assert_ne!(fresh(), fresh());
    }
}

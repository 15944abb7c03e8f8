//! Who may do what: bearer keys, compared in constant time.
use super::{ApiError, HttpConfig};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use std::{fmt, hint::black_box, sync::Arc};

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Nothing.
    Open,
    /// An API key, where there are any.
    Key,
    /// An admin key; where there is none, an API key.
    Admin,
}

/// The keys, as hashes: neither a dump of memory nor the time of a comparison tells one.
#[derive(Clone)]
pub struct Keys {
    api: Arc<[[u8; 32]]>,
    admin: Arc<[[u8; 32]]>,
}

impl Keys {
    /// The keys of `config`.
    pub fn new(config: &HttpConfig) -> Self {
        let hashes = |keys: &[String]| keys.iter().map(|key| hash(key.trim().as_bytes())).collect();
        Self { api: hashes(&config.api_keys), admin: hashes(&config.admin_keys) }
    }

    /// Whether `presented` opens a route with `access`. An admin key opens everything.
    pub fn allow(&self, access: Access, presented: Option<&str>) -> bool {
        // Whatever the lists hold, an empty key opens nothing.
        let presented = presented.filter(|key| !key.is_empty());
        let presented = presented.map(|key| hash(key.as_bytes()));
        let is_admin = presented.is_some_and(|key| is_among(&key, &self.admin));
        let is_client = presented.is_some_and(|key| is_among(&key, &self.api));
        match access {
            Access::Open => true,
            Access::Key => self.api.is_empty() || is_client || is_admin,
            Access::Admin if self.admin.is_empty() => self.api.is_empty() || is_client,
            Access::Admin => is_admin,
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} api, {} admin)", self.api.len(), self.admin.len())
    }
}

/// The layer of a guarded route.
pub(super) async fn guard(
    State((keys, access)): State<(Keys, Access)>,
    request: Request,
    next: Next,
) -> Response {
    if keys.allow(access, bearer(request.headers())) {
        return next.run(request).await;
    }
    ApiError::unauthorized().into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Looks at every byte of every key, whatever it finds.
fn is_among(presented: &[u8; 32], keys: &[[u8; 32]]) -> bool {
    let differing = |key: &[u8; 32]| {
        presented.iter().zip(key).fold(0, |bits, (a, b)| black_box(bits | (a ^ b)))
    };
    keys.iter().filter(|key| differing(key) == 0).count() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(api: &[&str], admin: &[&str]) -> Keys {
        let owned = |keys: &[&str]| keys.iter().map(ToString::to_string).collect();
        let (api_keys, admin_keys) = (owned(api), owned(admin));
        Keys::new(&HttpConfig { api_keys, admin_keys, ..HttpConfig::default() })
    }

    #[test]
    fn without_keys_everything_is_open() {
        let none = keys(&[], &[]);
        assert!(none.allow(Access::Key, None) && none.allow(Access::Admin, None));
    }

    #[test]
    fn any_api_key_opens_the_api_and_without_an_admin_key_the_rest() {
        let api = keys(&["one", "two"], &[]);
        for access in [Access::Key, Access::Admin] {
            assert!(api.allow(access, Some("one")) && api.allow(access, Some("two")));
            assert!(!api.allow(access, None) && !api.allow(access, Some("on")));
            assert!(!api.allow(access, Some("")));
        }
        assert!(api.allow(Access::Open, None));
    }

    #[test]
    fn an_empty_key_opens_nothing_and_does_not_open_the_door() {
        let empty = keys(&[""], &["admin", " "]);
        for access in [Access::Key, Access::Admin] {
            assert!(!empty.allow(access, Some("")) && !empty.allow(access, None), "{access:?}");
            assert!(empty.allow(access, Some("admin")), "{access:?}");
        }
    }

    #[test]
    fn an_admin_key_takes_the_admin_routes_from_api_keys() {
        let both = keys(&["client"], &["admin"]);
        assert!(!both.allow(Access::Admin, Some("client")));
        assert!(both.allow(Access::Admin, Some("admin")));
        assert!(both.allow(Access::Key, Some("admin")));
        let only_admin = keys(&[], &["admin"]);
        assert!(only_admin.allow(Access::Key, None) && !only_admin.allow(Access::Admin, None));
    }

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
        assert!(!format!("{:?}", keys(&["hidden"], &[])).contains("hidden"));
    }
}

//! Bodies: JSON in, with the path of whatever is wrong.
use super::ApiError;
use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Larger bodies are parsed on a blocking thread: about a third of a millisecond's work.
const INLINE_BYTES: usize = 64 << 10;

/// A JSON object as it came; [`JsonBody::read`] takes the fields that a type knows.
///
/// One body may be read as several types: that is how dialects share the fields they share.
#[derive(Debug)]
pub(super) struct JsonBody(Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !declares_json(request.headers()) {
            return Err(ApiError::not_json());
        }
        let bytes = read_bytes(request, state).await?;
        if bytes.len() <= INLINE_BYTES {
            return Self::parse(&bytes);
        }
        let parsed = tokio::task::spawn_blocking(move || Self::parse(&bytes)).await;
        parsed.unwrap_or_else(|_| Err(ApiError::internal("body_not_parsed")))
    }
}

impl JsonBody {
    /// Parses an object.
    ///
    /// # Errors
    /// 400 with the position for what is no JSON, or no object.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::malformed("body", "the body must be a JSON object")),
            Err(error) => {
                Err(ApiError::malformed("body", format!("the body is not JSON: {error}")))
            }
        }
    }

    /// The fields that `T` knows; others are left alone, and `null` is as good as absent for an `Option`.
    ///
    /// # Errors
    /// 400 with the path of the first field of a wrong type.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_path_to_error::deserialize(&self.0).map_err(|error| {
            let path = match error.path().to_string() {
                root if root == "." => "body".to_owned(),
                path => path,
            };
            ApiError::malformed(&path, format!("`{path}`: {}", error.inner()))
        })
    }

    /// The same of an object in a field; the default where there is none.
    ///
    /// # Errors
    /// 400 with the path of the first field of a wrong type.
    pub(super) fn read_in<T: DeserializeOwned + Default>(
        &self,
        field: &str,
    ) -> Result<T, ApiError> {
        let Some(value) = self.get(field) else { return Ok(T::default()) };
        serde_path_to_error::deserialize(value).map_err(|error| {
            let path = match error.path().to_string() {
                root if root == "." => field.to_owned(),
                path => format!("{field}.{path}"),
            };
            ApiError::malformed(&path, format!("`{path}`: {}", error.inner()))
        })
    }

    /// A field that is there and not `null`.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// Whether it says anything of a field, be it `null`.
    pub(super) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }
}

/// Most tokens and alternatives of an answer that is written on an async thread: about half a millisecond's work.
const INLINE_ENTRIES: usize = 1024;

/// The response that `write` writes, which lists so many tokens and alternatives.
///
/// # Errors
/// When the thread for it panics.
pub(super) async fn rendered<T: Serialize>(
    entries: usize,
    write: impl FnOnce() -> T + Send + 'static,
) -> Result<Response, ApiError> {
    if entries <= INLINE_ENTRIES {
        return Ok(Json(write()).into_response());
    }
    let written = tokio::task::spawn_blocking(move || Json(write()).into_response()).await;
    written.map_err(|_| ApiError::internal("answer_not_written"))
}

/// The whole body, up to its limit.
///
/// # Errors
/// 413 over the limit, 408 when it does not come.
pub(super) async fn read_bytes<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Bytes, ApiError> {
    let limit = request.extensions().get::<BodyLimit>().map_or(0, |limit| limit.0);
    Bytes::from_request(request, state).await.map_err(|rejection| {
        match rejection.into_response().status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(limit),
            _ => ApiError::slow_body(),
        }
    })
}

/// The fields that a type reads, as serde knows them.
#[cfg(test)]
pub(super) fn known_fields<T: DeserializeOwned>() -> Vec<&'static str> {
    struct Probe<'a>(&'a mut Vec<&'static str>);

    impl<'de> serde::Deserializer<'de> for Probe<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: serde::de::Visitor<'de>>(
            self,
            _: V,
        ) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("no struct"))
        }

        fn deserialize_struct<V: serde::de::Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.extend(fields);
            Err(serde::de::Error::custom("its fields are known now"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields = Vec::new();
    let read = T::deserialize(Probe(&mut fields));
    assert!(read.is_err(), "a probe is no body");
    fields
}

/// The limit that the route's layer enforces, for the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimit(pub(super) usize);

pub(super) fn declares_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = declared.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 5 && essence.to_ascii_lowercase().ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Inner {
        depth: Option<u32>,
    }

    #[derive(Debug, Deserialize)]
    struct Body {
        inner: Option<Vec<Inner>>,
    }

    fn refused(body: &str) -> Value {
        let parsed = JsonBody::parse(body.as_bytes()).and_then(|body| body.read::<Body>());
        parsed.expect_err("malformed").openai()
    }

    #[test]
    fn the_path_of_a_wrong_field_is_told() {
        let error = refused(r#"{"inner": [{"depth": 1}, {"depth": "two"}]}"#);
        assert_eq!(error["error"]["param"], "inner[1].depth");
        assert_eq!(error["error"]["type"], "Bad Request");
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_position() {
        for body in ["", "{", "[]", "null", "\"a\"", "{\"a\":}", "\u{0}"] {
            assert_eq!(refused(body)["error"]["param"], "body", "{body}");
        }
        assert!(refused("{\"a\":}").to_string().contains("column 6"));
        let deep = "[".repeat(100_000);
        assert!(refused(&deep).to_string().contains("recursion"));
    }

    #[test]
    fn null_and_unknown_fields_are_as_good_as_absent() {
        let body = JsonBody::parse(br#"{"inner": [{"depth": null}], "extra": {"a": 1}}"#);
        let body = body.expect("an object").read::<Body>().expect("a body");
        assert_eq!(body.inner.expect("there").first().and_then(|inner| inner.depth), None);
    }

    #[test]
    fn only_json_is_declared_as_json() {
        let declared = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().expect("a header"));
            declares_json(&headers)
        };
        assert!(declared("application/json"));
        assert!(declared("Application/JSON; charset=utf-8"));
        for other in ["text/plain", "application/x-www-form-urlencoded", "", "+json"] {
            assert!(!declared(other), "{other}");
        }
        assert!(!declares_json(&HeaderMap::new()));
    }
}

//! The one place where a failure becomes a status code and a body.
use super::Dialect;
use crate::error::{Classified, ErrorKind};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::borrow::Cow;

/// Longest message shown to a client, characters: an error must not be an amplifier.
const MAX_MESSAGE: usize = 1000;

/// What the model is not made for: TEI's backend fails at that.
const UNFIT: [&str; 4] = [
    "model_does_not_embed",
    "model_does_not_score",
    "head_does_not_score",
    "no_classification_head",
];

/// A failure as every dialect can show it. Its own response is OpenAI's error object.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    reason: Cow<'static, str>,
    message: String,
    param: Option<String>,
    /// Seconds.
    retry_after: Option<u64>,
    /// One more field of OpenAI's object.
    detail: Option<Box<(&'static str, Value)>>,
    /// How it is shown, where the body has said what the route leaves open.
    dialect: Option<Dialect>,
}

impl<E: Classified> From<E> for ApiError {
    fn from(error: E) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidRequest => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if error.kind() == ErrorKind::Internal {
            tracing::error!(code = error.code(), cause = ?error, "a request failed");
        }
        if !error.is_public() {
            return Self::internal(error.code());
        }
        let param = error.param().map(ToOwned::to_owned);
        let retry_after = error.retry_after();
        Self { param, retry_after, ..Self::new(status, error.code(), error.to_string()) }
    }
}

impl ApiError {
    fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        let message: String = message.into();
        let message = match message.char_indices().nth(MAX_MESSAGE) {
            Some((end, _)) => format!("{}…", &message[..end]),
            None => message,
        };
        Self {
            status,
            reason: reason.into(),
            message,
            param: None,
            retry_after: None,
            detail: None,
            dialect: None,
        }
    }

    /// 400: the body is no JSON, or not of the shape it must have. `path` leads to the field.
    pub fn malformed(path: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed_body", message).with_param(path)
    }

    /// 400: `field` has a value that cannot be served.
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_value", message).with_param(field)
    }

    /// 400: `field` has nothing to work on.
    pub fn empty(field: &str) -> Self {
        let message = format!("`{field}` cannot be empty");
        Self::new(StatusCode::BAD_REQUEST, "empty_input", message).with_param(field)
    }

    /// 400: `field` has more texts than a request may have.
    pub fn too_many_texts(field: &str, count: usize, most: usize) -> Self {
        let message = format!(
            "`{field}` has {count} texts, more than the limit of {most}; send several requests"
        );
        Self::new(StatusCode::BAD_REQUEST, "too_many_texts", message).with_param(field)
    }

    /// 400: the head is one of tokens.
    pub fn no_text_labels(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "no_classification_head", message).with_param("model")
    }

    /// 501: a route of another server's that this one does not serve.
    pub fn unserved(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "unsupported_route", message)
    }

    /// 400: the body is not declared as JSON. Browsers cannot send that across sites unasked.
    pub fn not_json() -> Self {
        let message = "Unsupported Media Type: Only 'application/json' is allowed";
        Self::new(StatusCode::BAD_REQUEST, "unsupported_media_type", message)
    }

    /// 400: a request to nobody, or to several.
    pub fn no_host() -> Self {
        let message = "A request needs one `Host` header, and it must be a host.";
        Self::new(StatusCode::BAD_REQUEST, "invalid_host", message)
    }

    /// 501: `field` is known, and not served.
    pub fn unsupported(field: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "unsupported_parameter", message).with_param(field)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        let message = "Invalid API key: send `Authorization: Bearer KEY`.";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    /// 403: an admin route of a server without admin keys, and a caller from elsewhere.
    pub fn admin_needs_key() -> Self {
        let message = "Without an admin key this route answers to the server's own machine alone, and \
                       not through a proxy: start the server with --admin-key or --admin-key-file, and \
                       send `Authorization: Bearer KEY`.";
        Self::new(StatusCode::FORBIDDEN, "admin_needs_key", message)
    }

    /// 403: a key that only some adapters know, and a request for the base.
    pub fn key_needs_adapter(field: &str) -> Self {
        let message = format!(
            "This key is for adapters of its own alone: name one of them in `{field}`; GET /v1/models \
             lists them."
        );
        Self::new(StatusCode::FORBIDDEN, "key_needs_adapter", message).with_param(field)
    }

    /// 404: no such model or adapter.
    pub fn no_model(name: &str) -> Self {
        let shown: String = name.chars().take(80).collect();
        let message = format!("The model `{}` does not exist.", shown.escape_debug());
        Self::new(StatusCode::NOT_FOUND, "model_not_found", message).with_param("model")
    }

    /// 404: no adapter has this number.
    pub fn no_adapter(number: u64) -> Self {
        let message = format!("no adapter has the id {number}; GET /lora-adapters lists them");
        Self::new(StatusCode::NOT_FOUND, "adapter_not_found", message)
    }

    /// 400: `field` says again what another field says already.
    pub fn exclusive(field: &str, other: &str) -> Self {
        let message = format!(
            "`{field}` and `{other}` both name adapters; name them in one place and leave the other out"
        );
        Self::new(StatusCode::BAD_REQUEST, "exclusive_fields", message).with_param(field)
    }

    /// 400: no answer could be what `field` asks for and what `other` asks for.
    pub fn contradiction(field: &str, other: &str) -> Self {
        let message = format!(
            "`{field}` and `{other}` ask for answers of different forms; leave one of them out"
        );
        Self::new(StatusCode::BAD_REQUEST, "exclusive_fields", message).with_param(field)
    }

    /// 404: no such path.
    pub fn no_route() -> Self {
        let message = "There is nothing at this path; README lists the routes.";
        Self::new(StatusCode::NOT_FOUND, "route_not_found", message)
    }

    /// 405.
    pub fn no_method() -> Self {
        let message = "This path does not take that method.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// 408: the client sent its body too slowly.
    pub fn slow_body() -> Self {
        let message = "The request's body stopped arriving.";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
    }

    /// 412: an `If-Match` or `If-None-Match` that does not hold.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", message)
    }

    /// 403: a reference to where adapters may not come from. The same whatever is there.
    pub fn source_not_allowed(allowed: &[String]) -> Self {
        let message = format!(
            "Adapters may not be published from there; --adapter-sources allows what begins with: {}.",
            allowed.join(", ")
        );
        Self::new(StatusCode::FORBIDDEN, "source_not_allowed", message).with_param("source")
    }

    /// 400: a field of vLLM's adapter routes says what it may not.
    pub fn user_input(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_user_input", message)
    }

    /// 400: a path that adapters may not be loaded from. The same whatever is there.
    pub fn path_not_allowed() -> Self {
        Self::user_input(
            "'lora_path' is not allowed: give the name of a published adapter, a hub id under --adapter-sources, or a path \
             below --lora-path-prefixes.",
        )
    }

    /// 404: no adapter where one may be, in vLLM's words.
    pub fn no_adapter_files(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "adapter_not_found", message)
    }

    /// 400: files that make no adapter, in vLLM's words.
    pub fn bad_adapter(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason, message)
    }

    /// 422: an adapter was tried before it was published, and did not pass.
    pub fn probe_failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "probe_failed", message)
    }

    /// 413: the body is over its limit.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("The request's body is larger than the limit of {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// 429: every place is taken.
    pub fn busy() -> Self {
        let message = "The server works on as many requests as it may; try again later.";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
    }

    /// 503: the server starts, stops, or lost its engine.
    pub fn unavailable(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// 503: the model is not there yet.
    pub fn loading() -> Self {
        let message = "The model is loading; try again in a moment.";
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "loading", message);
        Self { retry_after: Some(5), ..error }
    }

    /// 503: the server is about to end, and takes nothing new.
    pub fn draining() -> Self {
        let message = "The server is shutting down; send the request to another one.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", message)
    }

    /// 503: the server ends, and has waited for this answer as long as it may.
    pub fn cut_off() -> Self {
        let message =
            "The server shut down before the answer was complete; send the request again.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shut_down", message)
    }

    /// 504: the answer was not done in time.
    pub fn too_slow(seconds: u64) -> Self {
        let message = format!(
            "The answer took longer than {seconds} seconds; ask for fewer tokens or stream it."
        );
        Self::new(StatusCode::GATEWAY_TIMEOUT, "request_timeout", message)
    }

    /// 500: our own failure. What it was stands in the log, never here.
    pub fn internal(reason: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, reason, "internal error")
    }

    /// The same error, at `field`.
    #[must_use]
    pub fn with_param(mut self, field: &str) -> Self {
        let field: String = field.chars().take(200).collect();
        self.param = (!field.is_empty()).then_some(field);
        self
    }

    /// The same error, whose object has this field too.
    #[must_use]
    pub fn with_detail(self, field: &'static str, value: impl Into<Value>) -> Self {
        Self { detail: Some(Box::new((field, value.into()))), ..self }
    }

    /// The same error, shown in this dialect whatever the route's is.
    #[must_use]
    pub fn in_dialect(self, dialect: Dialect) -> Self {
        Self { dialect: Some(dialect), ..self }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// A stable name of the failure, `snake_case`.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether it is about the server's load or state, and not about the request.
    pub fn is_refusal(&self) -> bool {
        matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }

    /// What to tell a person.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// OpenAI's error object, with vLLM's types and integer code, and our stable `reason`.
    pub fn openai(&self) -> Value {
        let mut error = json!({
            "message": self.message,
            "type": self.openai_type(),
            "param": self.param,
            "code": self.status.as_u16(),
            "reason": self.reason,
        });
        if let Some((field, value)) = self.detail.as_deref() {
            error[*field] = value.clone();
        }
        json!({"error": error})
    }

    /// The same beside itself: vLLM's control planes look for its fields there.
    pub fn vllm(&self) -> Value {
        let mut body = self.openai();
        for field in ["message", "type", "param", "code"] {
            body[field] = body["error"][field].clone();
        }
        body["object"] = "error".into();
        body
    }

    /// TGI's and LoRAX's error object.
    pub fn lorax(&self) -> Value {
        let (prefix, kind) = match self.status {
            StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED => {
                ("Input validation error: ", "validation")
            }
            StatusCode::TOO_MANY_REQUESTS => ("Model is overloaded: ", "overloaded"),
            StatusCode::SERVICE_UNAVAILABLE => ("", "healthcheck"),
            StatusCode::INTERNAL_SERVER_ERROR => {
                ("Request failed during generation: ", "generation")
            }
            _ => ("", self.reason.as_ref()),
        };
        json!({"error": format!("{prefix}{}", self.message), "error_type": kind})
    }

    /// The status that TGI's clients expect: 422 for what OpenAI answers with 400.
    pub fn lorax_status(&self) -> StatusCode {
        match self.status {
            StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            StatusCode::INTERNAL_SERVER_ERROR => StatusCode::FAILED_DEPENDENCY,
            status => status,
        }
    }

    /// The error object of text-embeddings-inference.
    pub fn tei(&self) -> Value {
        json!({"error": self.message, "error_type": self.tei_kind().0})
    }

    /// And its status.
    pub fn tei_status(&self) -> StatusCode {
        self.tei_kind().1
    }

    /// What is the request's fault is `Validation` there, whatever else it is.
    fn tei_kind(&self) -> (&'static str, StatusCode) {
        match self.status {
            status @ StatusCode::BAD_REQUEST if self.reason == "empty_input" => ("Empty", status),
            StatusCode::BAD_REQUEST if UNFIT.contains(&self.reason()) => {
                ("Backend", StatusCode::FAILED_DEPENDENCY)
            }
            StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED => {
                ("Validation", StatusCode::UNPROCESSABLE_ENTITY)
            }
            status @ StatusCode::TOO_MANY_REQUESTS => ("Overloaded", status),
            status @ StatusCode::SERVICE_UNAVAILABLE => ("Unhealthy", status),
            StatusCode::INTERNAL_SERVER_ERROR => ("Backend", StatusCode::FAILED_DEPENDENCY),
            status if status.is_server_error() => ("Backend", status),
            status => ("Validation", status),
        }
    }

    fn openai_type(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST if self.reason == "malformed_body" => "Bad Request",
            StatusCode::BAD_REQUEST if self.reason == "invalid_user_input" => "InvalidUserInput",
            StatusCode::UNAUTHORIZED => "invalid_request_error",
            StatusCode::FORBIDDEN => "PermissionDeniedError",
            StatusCode::NOT_FOUND => "NotFoundError",
            StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowedError",
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "TimeoutError",
            StatusCode::CONFLICT => "ConflictError",
            StatusCode::PRECONDITION_FAILED => "PreconditionFailedError",
            StatusCode::PAYLOAD_TOO_LARGE => "RequestTooLargeError",
            StatusCode::TOO_MANY_REQUESTS => "RateLimitError",
            StatusCode::NOT_IMPLEMENTED => "NotImplementedError",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableError",
            StatusCode::INTERNAL_SERVER_ERROR => "InternalServerError",
            _ => "BadRequestError",
        }
    }

    /// Headers that say what to do next: authenticate, or come again.
    fn headers(&self, response: &mut Response) {
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, self.retry_after.unwrap_or(1).into());
            }
            _ => {}
        }
    }
}

impl IntoResponse for ApiError {
    /// The OpenAI form; the error itself rides along for dialects that show it in another.
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.openai())).into_response();
        self.headers(&mut response);
        response.extensions_mut().insert(self);
        response
    }
}

/// Shows an error as the clients of the route's dialect read it, or of the one that it belongs to.
pub(super) fn in_form_of(dialect: Dialect, mut response: Response) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let mut response = match error.dialect.unwrap_or(dialect) {
        Dialect::OpenAi => response,
        Dialect::Lorax => (error.lorax_status(), Json(error.lorax())).into_response(),
        Dialect::Tei => (error.tei_status(), Json(error.tei())).into_response(),
        Dialect::Vllm => (error.status, Json(error.vllm())).into_response(),
    };
    error.headers(&mut response);
    response.extensions_mut().insert(error);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{adapter::AdapterError, generation::GenerateError};

    #[derive(Debug, thiserror::Error)]
    #[error("full")]
    struct Full;

    impl Classified for Full {
        fn kind(&self) -> ErrorKind {
            ErrorKind::Overloaded
        }

        fn code(&self) -> &'static str {
            "queue_full"
        }
    }

    #[test]
    fn every_kind_has_its_status() {
        let missing = AdapterError::NotFound("rate".parse().expect("a name"));
        let missing = GenerateError::Adapter { error: missing, field: "model".into() };
        let missing = ApiError::from(missing);
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        assert!(missing.message().contains("`rate`"), "{}", missing.message());
        assert_eq!(missing.openai()["error"]["param"], "model");
        let full = ApiError::from(Full);
        assert_eq!(full.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(full.into_response().headers()["retry-after"], "1");
        let long = GenerateError::ContextLength { context: 8, prompt: 9, asked: 1 };
        let long = ApiError::from(long).openai();
        assert_eq!(long["error"]["code"], 400);
        assert_eq!(long["error"]["type"], "BadRequestError");
        assert_eq!(long["error"]["param"], "input_tokens");
        assert_eq!(long["error"]["reason"], "context_length_exceeded");
    }

    #[test]
    fn a_cause_is_never_shown() {
        let error = ApiError::from(GenerateError::Internal("/secret/path".into()));
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!error.openai().to_string().contains("secret"));
        assert_eq!(error.lorax()["error_type"], "generation");
    }

    #[test]
    fn an_error_is_never_longer_than_a_page() {
        let error = ApiError::malformed(&"p".repeat(5000), "é".repeat(5000));
        assert!(error.message().chars().count() <= MAX_MESSAGE + 1);
        assert!(error.openai().to_string().len() < 3 * MAX_MESSAGE);
    }
}

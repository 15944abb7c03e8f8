//! Paths that several servers use: the body tells whose client it is.
use super::{ApiError, AppState, Dialect, Route, json::JsonBody, lorax, reading::Call, tei, vllm};
use axum::{extract::State, response::Response};

/// A path, fields of which a body has at least one, and whose they are; the first line that fits counts.
const TELLS: &[(&str, &[&str], Dialect)] = &[
    // lorax-client sends both whatever they are, clients of text-embeddings-inference neither.
    ("/embed", &["parameters", "stream"], Dialect::Lorax),
    ("/embed", &[], Dialect::Tei),
    ("/classify", &["input"], Dialect::OpenAi),
    ("/classify", &["inputs"], Dialect::Lorax),
    ("/rerank", &["texts"], Dialect::Tei),
    ("/tokenize", &["prompt", "messages"], Dialect::OpenAi),
    ("/tokenize", &["inputs"], Dialect::Lorax),
];

/// Whose client sent `body` to `path`; OpenAI's and vLLM's where nothing else is told.
pub(super) fn dialect(path: &str, body: &JsonBody) -> Dialect {
    let fits = |fields: &[&str]| fields.is_empty() || fields.iter().any(|field| body.has(field));
    let told = TELLS.iter().find(|(at, fields, _)| *at == path && fits(fields));
    told.map_or(Dialect::OpenAi, |(_, _, dialect)| *dialect)
}

/// Whose errors a route may show: those of the clients that its path has, or its own dialect's.
pub(super) fn dialects(route: &Route) -> Vec<Dialect> {
    let told = TELLS.iter().filter(|(at, ..)| *at == route.path).map(|(.., dialect)| *dialect);
    let mut all = vec![route.dialect];
    all.extend(told.filter(|dialect| *dialect != route.dialect));
    all.dedup();
    all
}

/// `POST /embed`
pub(super) async fn embed(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    let dialect = dialect("/embed", &call.body);
    let answer = match dialect {
        Dialect::Lorax => lorax::embed(&app, call).await,
        Dialect::Tei | Dialect::OpenAi | Dialect::Vllm => tei::embed(&app, call).await,
    };
    answer.map_err(|error| error.in_dialect(dialect))
}

/// `POST /classify`
pub(super) async fn classify(
    State(app): State<AppState>,
    call: Call,
) -> Result<Response, ApiError> {
    let dialect = dialect("/classify", &call.body);
    let answer = match dialect {
        Dialect::Lorax => lorax::classify(&app, call).await,
        Dialect::Tei | Dialect::OpenAi | Dialect::Vllm => vllm::classify(&app, call).await,
    };
    answer.map_err(|error| error.in_dialect(dialect))
}

/// `POST /rerank`
pub(super) async fn rerank(State(app): State<AppState>, call: Call) -> Result<Response, ApiError> {
    let dialect = dialect("/rerank", &call.body);
    let answer = match dialect {
        Dialect::Tei => tei::rerank(&app, call).await,
        Dialect::Lorax | Dialect::OpenAi | Dialect::Vllm => vllm::rerank(&app, call).await,
    };
    answer.map_err(|error| error.in_dialect(dialect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ROUTES;

    #[test]
    fn a_body_tells_whose_client_sent_it() {
        for (path, body, expected) in [
            ("/embed", r#"{"inputs": "a"}"#, Dialect::Tei),
            ("/embed", r#"{"inputs": "a", "parameters": null, "stream": false}"#, Dialect::Lorax),
            ("/embed", r#"{"inputs": "a", "parameters": {}}"#, Dialect::Lorax),
            ("/classify", r#"{"input": "a"}"#, Dialect::OpenAi),
            ("/classify", r#"{"inputs": "a"}"#, Dialect::Lorax),
            ("/classify", "{}", Dialect::OpenAi),
            ("/rerank", r#"{"query": "a", "texts": []}"#, Dialect::Tei),
            ("/rerank", r#"{"query": "a", "documents": []}"#, Dialect::OpenAi),
            ("/tokenize", r#"{"prompt": "a"}"#, Dialect::OpenAi),
            ("/tokenize", r#"{"inputs": "a"}"#, Dialect::Lorax),
        ] {
            let parsed = JsonBody::parse(body.as_bytes()).expect("an object");
            assert_eq!(dialect(path, &parsed), expected, "{path} {body}");
        }
    }

    #[test]
    fn every_path_is_a_route() {
        for (path, ..) in TELLS {
            assert!(ROUTES.iter().any(|route| route.path == *path), "{path}");
        }
    }
}

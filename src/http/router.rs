//! Every route in one table.
use super::{
    ApiError, AppState, access, admin,
    admission::{admit, take_turns},
    auth::{Access, guard},
    colliding,
    drain::until_the_end,
    events, health, info,
    json::BodyLimit,
    layers, llama, lorax, metrics, openai, openapi, spans, tei, tokens, vllm,
};
use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    middleware::from_fn_with_state,
    routing::{MethodRouter, delete, get, patch, post, put},
};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tower::ServiceBuilder;

/// In which form a route answers errors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// OpenAI's object.
    OpenAi,
    /// TGI's and LoRAX's.
    Lorax,
    /// OpenAI's object, and its fields beside it: vLLM's adapter routes.
    Vllm,
    /// That of text-embeddings-inference.
    Tei,
}

/// What a request to a route costs, and so which limits it has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cost {
    /// Nothing: answered whatever the load.
    Free,
    /// Work of the model's, or much of our own: `--max-requests`, `--max-body-bytes`.
    Work,
    /// An adapter's files: `--max-upload-bytes`.
    Upload,
}

/// One line of [`ROUTES`].
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// As axum writes patterns.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// How it fails.
    pub dialect: Dialect,
    /// What it is for: README's words.
    pub purpose: &'static str,
    cost: Cost,
    asks: bool,
    handler: fn() -> MethodRouter<AppState>,
}

const fn route(
    method: &'static str,
    path: &'static str,
    purpose: &'static str,
    handler: fn() -> MethodRouter<AppState>,
) -> Route {
    let (access, dialect, cost) = (Access::Key, Dialect::OpenAi, Cost::Work);
    Route { method, path, access, dialect, purpose, cost, asks: false, handler }
}

impl Route {
    const fn open(self) -> Self {
        Self { access: Access::Open, cost: Cost::Free, ..self }
    }

    /// It asks the model: every request is told of.
    const fn asks(self) -> Self {
        Self { asks: true, ..self }
    }

    const fn free(self) -> Self {
        Self { cost: Cost::Free, ..self }
    }

    const fn admin(self, cost: Cost) -> Self {
        Self { access: Access::Admin, cost, ..self }
    }

    const fn vllm(self) -> Self {
        Self { dialect: Dialect::Vllm, ..self }
    }

    const fn tei(self) -> Self {
        Self { dialect: Dialect::Tei, ..self }
    }

    const fn lorax(self) -> Self {
        Self { dialect: Dialect::Lorax, ..self }
    }
}

/// Everything there is. README's table says the same: a test compares them.
pub const ROUTES: &[Route] = &[
    route("POST", "/v1/completions", "complete a prompt, or several", || post(openai::completions))
        .asks(),
    route("POST", "/v1/chat/completions", "continue a conversation", || {
        post(openai::chat_completions)
    })
    .asks(),
    route("GET", "/v1/models", "the base model, every adapter and every alias", || {
        get(openai::list)
    })
    .free(),
    route("GET", "/v1/models/{*id}", "one of them", || get(openai::retrieve)).free(),
    route("DELETE", "/v1/models/{*id}", "take an adapter out of service", || {
        delete(openai::remove)
    })
    .admin(Cost::Free),
    route("POST", "/generate", "LoRAX and TGI: complete `inputs`", || post(lorax::generate))
        .lorax()
        .asks(),
    route("POST", "/generate_stream", "the same, as a stream", || post(lorax::generate_stream))
        .lorax()
        .asks(),
    route("POST", "/", "LoRAX and TGI: either, by `stream`", || post(lorax::compat)).lorax().asks(),
    route("GET", "/info", "LoRAX, TGI and TEI: the model and its limits", || get(info::info))
        .free()
        .lorax(),
    route("POST", "/v1/embeddings", "texts to vectors", || post(openai::embeddings)).asks(),
    route("POST", "/classify", "vLLM: labels of `input`; LoRAX: what is found in `inputs`", || {
        post(colliding::classify)
    })
    .asks(),
    route("POST", "/classify_batch", "LoRAX: what is found in each of `inputs`", || {
        post(lorax::classify_batch)
    })
    .lorax()
    .asks(),
    route("POST", "/score", "vLLM: how well texts go together", || post(vllm::score)).asks(),
    route("POST", "/v1/score", "the same", || post(vllm::score)).asks(),
    route(
        "POST",
        "/rerank",
        "texts by how well they go with a query: vLLM's `documents`, TEI's `texts`",
        || post(colliding::rerank),
    )
    .asks(),
    route("POST", "/v1/rerank", "the same of `documents`", || post(vllm::rerank_route)).asks(),
    route("POST", "/v2/rerank", "the same", || post(vllm::rerank_route)).asks(),
    route(
        "POST",
        "/embed",
        "TEI: texts to vectors; LoRAX, by `parameters` or `stream`: one",
        || post(colliding::embed),
    )
    .tei()
    .asks(),
    route("POST", "/embed_all", "TEI: a vector for each token", || post(tei::embed_all))
        .tei()
        .asks(),
    route("POST", "/embed_sparse", "TEI: refused", || post(tei::embed_sparse)).tei(),
    route("POST", "/predict", "TEI: scores of every label", || post(tei::predict)).tei().asks(),
    route("POST", "/similarity", "TEI: cosines of sentences with one", || post(tei::similarity))
        .tei()
        .asks(),
    route("POST", "/tokenize", "text or a conversation to tokens", || post(tokens::tokenize)),
    route("POST", "/decode", "TEI: tokens to texts", || post(tei::decode)).tei(),
    route("POST", "/detokenize", "tokens to text", || post(tokens::detokenize)),
    route(
        "GET",
        "/lora-adapters",
        "llama.cpp: every adapter and the id that `lora` names it by",
        || get(llama::list),
    )
    .free(),
    route(
        "POST",
        "/lora-adapters",
        "llama.cpp: the scales of adapters in requests that name none",
        || post(llama::set),
    )
    .admin(Cost::Free),
    route("POST", "/v1/load_lora_adapter", "vLLM: load an adapter by its path or hub id", || {
        post(vllm::load)
    })
    .admin(Cost::Free)
    .vllm(),
    route("POST", "/v1/unload_lora_adapter", "vLLM: take an adapter out of service", || {
        post(vllm::unload)
    })
    .admin(Cost::Free)
    .vllm(),
    route("GET", "/admin/adapters", "every adapter, its version, rank and size", || {
        get(admin::list)
    })
    .admin(Cost::Free),
    route("GET", "/admin/adapters/{name}", "one adapter", || get(admin::get)).admin(Cost::Free),
    route("PUT", "/admin/adapters/{name}", "publish or replace an adapter, while serving", || {
        put(admin::publish)
    })
    .admin(Cost::Upload),
    route("DELETE", "/admin/adapters/{name}", "take an adapter out of service", || {
        delete(admin::retire)
    })
    .admin(Cost::Free),
    route(
        "PATCH",
        "/admin/adapters/{name}",
        "change the terms on which an adapter is served",
        || patch(admin::set_terms),
    )
    .admin(Cost::Free),
    route(
        "POST",
        "/admin/adapters/{name}/rollback",
        "make a name mean its former version again, or a given one",
        || post(admin::roll_back),
    )
    .admin(Cost::Free),
    route("GET", "/admin/adapters/{name}/files", "an adapter's files, as a tar", || {
        get(admin::files)
    })
    .admin(Cost::Free),
    route("GET", "/admin/events", "who did what: `limit`, `name`; the newest first", || {
        get(events::list)
    })
    .admin(Cost::Free),
    route(
        "GET",
        "/admin/aliases",
        "every alias, its targets and what became of their requests",
        || get(admin::list_aliases),
    )
    .admin(Cost::Free),
    route("GET", "/admin/aliases/{alias}", "one alias", || get(admin::get_alias)).admin(Cost::Free),
    route(
        "PUT",
        "/admin/aliases/{alias}",
        "split a model name between adapters, while serving",
        || put(admin::put_alias),
    )
    .admin(Cost::Free),
    route("DELETE", "/admin/aliases/{alias}", "remove an alias", || delete(admin::delete_alias))
        .admin(Cost::Free),
    route("POST", "/admin/aliases/{alias}/rollback", "undo an alias' last change", || {
        post(admin::roll_back_alias)
    })
    .admin(Cost::Free),
    route(
        "GET",
        "/health",
        "200, or 503 while the server loads or drains, or has lost its engine",
        || get(health::health),
    )
    .open(),
    route("GET", "/livez", "200, or 503 when the engine is dead or hangs", || get(health::live))
        .open(),
    route("GET", "/ping", "the same", || get(health::health)).open(),
    route("POST", "/ping", "the same", || post(health::health)).open(),
    route("GET", "/v1/health", "the same, with a body", || get(health::status)).open(),
    route("GET", "/load", "vLLM: answers that are being made or wait", || get(health::load)).open(),
    route("GET", "/is_sleeping", "vLLM: no", || get(health::sleeping)).open(),
    route("GET", "/version", "the server's version", || get(health::version)).open(),
    route("GET", "/metrics", "Prometheus metrics", || get(metrics::scrape)).open(),
    route("GET", "/openapi.json", "these routes for machines: OpenAPI 3.1", || {
        get(openapi::document)
    })
    .open(),
    route("GET", "/docs", "the same to browse", || get(openapi::page)).open(),
    route("GET", "/docs/{*file}", "its files", || get(openapi::file)).open(),
];

/// Whether requests to the route with this pattern are told of by [`access::tell`].
pub(super) fn is_told_of(method: &str, path: &str) -> bool {
    ROUTES.iter().any(|route| route.asks && (route.method, route.path) == (method, path))
}

/// The dialect of the route with this pattern; OpenAI's where there is none.
pub(super) fn dialect(path: &str) -> Dialect {
    ROUTES.iter().find(|route| route.path == path).map_or(Dialect::OpenAi, |route| route.dialect)
}

/// Uploads that may come at once: each takes up to `--max-upload-bytes` of disk.
const UPLOADS: usize = 8;

/// The whole server as one service.
pub fn router(app: AppState) -> Router {
    let gates = Gates {
        places: Arc::new(Semaphore::new(app.config.max_requests.min(Semaphore::MAX_PERMITS))),
        uploads: Arc::new(Semaphore::new(UPLOADS)),
    };
    let mut routes = Router::new();
    for route in ROUTES {
        routes = routes.route(route.path, gates.guarded(route, &app));
    }
    let routes = routes
        .method_not_allowed_fallback(|| async { ApiError::no_method() })
        .fallback(|| async { ApiError::no_route() });
    layers::wrap(routes, &app).with_state(app)
}

/// What stands between a route and its handler.
struct Gates {
    places: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
}

impl Gates {
    /// A route's handler behind its limits and its door; the first layer comes first.
    fn guarded(&self, route: &Route, app: &AppState) -> MethodRouter<AppState> {
        let limit = match route.cost {
            Cost::Free | Cost::Work => app.config.max_body_bytes,
            Cost::Upload => app.config.max_upload_bytes,
        };
        let (needs_key, asks) = (route.access != Access::Open, route.asks);
        let (places, uploads) = (Arc::clone(&self.places), Arc::clone(&self.uploads));
        let layers = ServiceBuilder::new()
            .option_layer(asks.then(|| from_fn_with_state(app.clone(), access::tell)))
            .option_layer(
                (needs_key && !asks).then(|| from_fn_with_state(app.clone(), spans::trace)),
            )
            .option_layer(needs_key.then(|| from_fn_with_state(app.clone(), until_the_end)))
            .layer(from_fn_with_state((app.clone(), route.access), guard))
            .option_layer((route.cost == Cost::Work).then(|| from_fn_with_state(places, admit)))
            .option_layer(
                (route.cost == Cost::Upload).then(|| from_fn_with_state(uploads, take_turns)),
            )
            .layer(DefaultBodyLimit::max(limit))
            .layer(Extension(BodyLimit(limit)));
        (route.handler)().layer(layers)
    }
}

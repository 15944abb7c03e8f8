//! A web server on this machine's loopback, for tests: files, and `WebDAV`'s listings of one level.
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use std::{collections::BTreeMap, fmt::Write, sync::Arc, thread};
use tokio::{net::TcpListener, runtime::Builder};

/// By path, with a slash in front.
type Files = BTreeMap<&'static str, &'static str>;

/// Starts it and returns its address; it ends with the process. One that cannot list answers as plain servers do.
pub(super) fn start(files: &[(&'static str, &'static str)], can_list: bool) -> String {
    let files: Files = files.iter().copied().collect();
    let routes = Router::new().fallback(answer).with_state(Arc::new((files, can_list)));
    let (address, started) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            address.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, routes).await.unwrap();
        });
    });
    started.recv().unwrap().to_string()
}

async fn answer(
    State(state): State<Arc<(Files, bool)>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let (files, can_list) = &*state;
    match method.as_str() {
        "GET" | "HEAD" => match files.get(uri.path()) {
            Some(text) => ([(header::LAST_MODIFIED, WHEN)], *text).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        "PROPFIND" if *can_list && headers.get("depth").is_some_and(|depth| depth == "1") => {
            level(files, uri.path())
        }
        "PROPFIND" if *can_list => StatusCode::FORBIDDEN.into_response(),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

const WHEN: &str = "Wed, 26 Aug 2026 10:00:00 GMT";

fn level(files: &Files, at: &str) -> Response {
    let at = format!("{}/", at.trim_end_matches('/'));
    let mut entries = BTreeMap::from([(at.clone(), None)]);
    for (path, text) in files {
        match path.strip_prefix(&at).map(|rest| rest.split_once('/')) {
            None => {}
            Some(Some((folder, _))) => drop(entries.insert(format!("{at}{folder}/"), None)),
            Some(None) => drop(entries.insert((*path).to_owned(), Some(text.len()))),
        }
    }
    let mut xml = String::from("<D:multistatus xmlns:D=\"DAV:\">");
    for (path, bytes) in entries {
        let kind = match bytes {
            None => "<D:resourcetype><D:collection/></D:resourcetype>".to_owned(),
            Some(bytes) => {
                format!("<D:resourcetype/><D:getcontentlength>{bytes}</D:getcontentlength>")
            }
        };
        write!(
            xml,
            "<D:response><D:href>{path}</D:href><D:propstat><D:prop>{kind}<D:getlastmodified>{WHEN}</D:getlastmodified>\
             </D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        )
        .unwrap();
    }
    (StatusCode::MULTI_STATUS, xml + "</D:multistatus>").into_response()
}

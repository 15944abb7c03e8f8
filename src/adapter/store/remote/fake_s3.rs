//! An S3 server on this machine's loopback, for tests: one bucket, short pages, conditions, uploads in pieces.
use crate::adapter::VersionId;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::SystemTime,
};
use tokio::{net::TcpListener, runtime::Builder};

pub(super) const BUCKET: &str = "bucket";
pub(super) const KEY_ID: &str = "test-key";
/// Objects a listing shows at a time.
const PAGE: usize = 3;

/// How the server misbehaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// Writes are forbidden.
    pub(super) read_only: bool,
    /// Conditions are not looked at.
    pub(super) careless: bool,
    /// So many writes are done and answered with "try again".
    pub(super) lost_answers: usize,
    /// So many requests are answered with "conflict" and not done.
    pub(super) conflicts: usize,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    tag: String,
    meta: Vec<(String, String)>,
    modified: SystemTime,
}

#[derive(Default)]
struct Contents {
    objects: BTreeMap<String, Object>,
    uploads: HashMap<String, BTreeMap<u32, Bytes>>,
    faults: Faults,
    requests: Vec<String>,
}

/// Ends with the process.
pub(super) struct FakeS3 {
    pub(super) endpoint: String,
    contents: Arc<Mutex<Contents>>,
}

impl FakeS3 {
    pub(super) fn start() -> Self {
        let contents = Arc::<Mutex<Contents>>::default();
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&contents));
        let routes = routes.layer(axum::extract::DefaultBodyLimit::disable());
        let (address, started) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                address.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, routes).await.unwrap();
            });
        });
        Self { endpoint: format!("http://{}", started.recv().unwrap()), contents }
    }

    /// What the environment says of it.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let variables = [
            ("AWS_ENDPOINT", self.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", "very-secret"),
            ("AWS_REGION", "eu-north-1"),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    pub(super) fn fail(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    /// `METHOD key?query` of each, and forgets them.
    pub(super) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().requests)
    }

    /// Uploads in pieces that were begun and neither completed nor given up.
    pub(super) fn open_uploads(&self) -> usize {
        self.lock().uploads.len()
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap()
    }
}

async fn answer(
    State(contents): State<Arc<Mutex<Contents>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut contents = contents.lock().unwrap();
    let path = decoded(uri.path());
    let query = uri.query().unwrap_or_default();
    let (bucket, key) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    contents.requests.push(format!("{method} {key}?{query}"));
    let signed = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !signed.is_some_and(|value| value.contains(&format!("Credential={KEY_ID}/"))) {
        return refusal(StatusCode::FORBIDDEN, "SignatureDoesNotMatch");
    }
    if bucket != BUCKET {
        return refusal(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    let is_read = matches!(method, Method::GET | Method::HEAD);
    if !is_read && contents.faults.read_only {
        return refusal(StatusCode::FORBIDDEN, "AccessDenied");
    }
    if !is_read && contents.faults.conflicts > 0 {
        contents.faults.conflicts -= 1;
        return refusal(StatusCode::CONFLICT, "ConditionalRequestConflict");
    }
    let query: HashMap<String, String> = query.split('&').filter_map(pair).collect();
    let done = match (method, query.get("uploadId")) {
        (Method::GET, _) if key.is_empty() => return contents.list(&query).into_response(),
        (Method::GET | Method::HEAD, _) => return contents.get(key, &headers),
        (Method::DELETE, Some(upload)) => {
            contents.uploads.remove(upload);
            StatusCode::NO_CONTENT.into_response()
        }
        (Method::DELETE, None) => {
            contents.objects.remove(key);
            StatusCode::NO_CONTENT.into_response()
        }
        (Method::PUT, Some(upload)) => contents.put_piece(upload, &query["partNumber"], body),
        (Method::PUT, None) => contents.put(key, &headers, body),
        (Method::POST, Some(upload)) => contents.complete(key, upload),
        (Method::POST, None) if query.contains_key("uploads") => contents.begin(),
        (Method::POST, None) => contents.delete_all(&body),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    if contents.faults.lost_answers > 0 && done.status().is_success() {
        contents.faults.lost_answers -= 1;
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
    }
    done
}

impl Contents {
    /// One page. A folder counts as one entry, and everything in it lies behind it.
    fn list(&self, query: &HashMap<String, String>) -> String {
        let text = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let (prefix, delimiter) = (text("prefix"), text("delimiter"));
        let after = text("continuation-token").max(text("start-after"));
        let mut entries = BTreeMap::new();
        for (key, object) in &self.objects {
            let Some(rest) = key.strip_prefix(prefix) else { continue };
            let folder = rest.find(delimiter).filter(|_| !delimiter.is_empty());
            match folder {
                Some(end) => entries.insert(&key[..=prefix.len() + end], None),
                None => entries.insert(key, Some(object)),
            };
        }
        let mut left = entries.into_iter().filter(|(key, _)| *key > after).peekable();
        let (mut xml, mut last) = (String::from("<ListBucketResult>"), "");
        for (key, object) in left.by_ref().take(PAGE) {
            last = key;
            let entry = object.map_or_else(
                || format!("<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>"),
                |object| object.listed(key),
            );
            xml.push_str(&entry);
        }
        if left.peek().is_some() {
            write!(xml, "<NextContinuationToken>{last}</NextContinuationToken>").unwrap();
        }
        xml + "</ListBucketResult>"
    }

    fn get(&self, key: &str, headers: &HeaderMap) -> Response {
        let Some(object) = self.objects.get(key) else {
            return refusal(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if header(header::IF_MATCH).is_some_and(|tag| tag != object.tag) {
            return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let range = header(header::RANGE).and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
        });
        let modified = time(object.modified).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let mut response = match range {
            Some((first, last)) => {
                let piece = object.bytes.slice(first..=last);
                (StatusCode::PARTIAL_CONTENT, piece).into_response()
            }
            None => object.bytes.clone().into_response(),
        };
        let mut set = |name: &str, value: &str| {
            let name: header::HeaderName = name.parse().unwrap();
            response.headers_mut().insert(name, value.parse().unwrap());
        };
        if let Some((first, last)) = range {
            set("content-range", &format!("bytes {first}-{last}/{}", object.bytes.len()));
        }
        set("etag", &object.tag);
        set("last-modified", &modified);
        object.meta.iter().for_each(|(name, value)| set(name, value));
        response
    }

    fn put(&mut self, key: &str, headers: &HeaderMap, bytes: Bytes) -> Response {
        let there = self.objects.get(key);
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if !self.faults.careless {
            if header(header::IF_NONE_MATCH).is_some() && there.is_some() {
                return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
            }
            match (header(header::IF_MATCH), there) {
                (Some(_), None) => return refusal(StatusCode::NOT_FOUND, "NoSuchKey"),
                (Some(tag), Some(object)) if tag != object.tag => {
                    return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
                }
                _ => {}
            }
        }
        let meta = headers.iter().filter(|(name, _)| name.as_str().starts_with("x-amz-meta-"));
        let meta = meta.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        self.store(key, bytes, meta.collect())
    }

    fn store(&mut self, key: &str, bytes: Bytes, meta: Vec<(String, String)>) -> Response {
        let tag = tag(&bytes);
        let object = Object { bytes, tag: tag.clone(), meta, modified: SystemTime::now() };
        self.objects.insert(key.to_owned(), object);
        ([(header::ETAG, tag)], "").into_response()
    }

    fn begin(&mut self) -> Response {
        let id = format!("upload-{}", self.uploads.len());
        self.uploads.insert(id.clone(), BTreeMap::new());
        format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>")
            .into_response()
    }

    fn put_piece(&mut self, upload: &str, number: &str, bytes: Bytes) -> Response {
        let tag = tag(&bytes);
        let pieces = self.uploads.get_mut(upload).unwrap();
        pieces.insert(number.parse().unwrap(), bytes);
        ([(header::ETAG, tag)], "").into_response()
    }

    fn complete(&mut self, key: &str, upload: &str) -> Response {
        let pieces = self.uploads.remove(upload).unwrap();
        let bytes: Vec<u8> = pieces.into_values().flatten().collect();
        self.store(key, bytes.into(), Vec::new());
        let tag = &self.objects[key].tag;
        format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>")
            .into_response()
    }

    fn delete_all(&mut self, body: &Bytes) -> Response {
        let text = str::from_utf8(body).unwrap();
        let mut xml = String::from("<DeleteResult>");
        for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
            self.objects.remove(key);
            write!(xml, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
        }
        (xml + "</DeleteResult>").into_response()
    }
}

impl Object {
    fn listed(&self, key: &str) -> String {
        format!(
            "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>{}</LastModified><ETag>{}</ETag></Contents>",
            self.bytes.len(),
            time(self.modified).format("%Y-%m-%dT%H:%M:%S.000Z"),
            self.tag.replace('"', "&quot;")
        )
    }
}

fn refusal(status: StatusCode, code: &str) -> Response {
    (status, format!("<Error><Code>{code}</Code></Error>")).into_response()
}

fn time(time: SystemTime) -> DateTime<Utc> {
    time.into()
}

/// A hash, as S3's own is: the same bytes have the same.
fn tag(bytes: &[u8]) -> String {
    format!("\"{:.32}\"", VersionId::of(&[bytes]).to_string())
}

fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (!name.is_empty()).then(|| (name.to_owned(), decoded(value)))
}

/// Of a URL's path or query.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).unwrap()
}

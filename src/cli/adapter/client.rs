//! Requests to the admin API and what comes of them.
use super::{error::CommandError, server::ServerArgs};
use reqwest::{Client, Method, RequestBuilder, Response, Url, redirect::Policy};
use serde_json::Value;
use std::{error::Error, time::Duration};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for an answer to what carries no files.
const ANSWER: Duration = Duration::from_mins(10);
/// How often a connection without traffic is tried.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// One server, and the key to it.
pub(super) struct Server {
    http: Client,
    url: Url,
    key: Option<String>,
}

impl Server {
    /// Connects when the first request is sent.
    ///
    /// # Errors
    /// For a wrong address or key file.
    pub(super) fn new(args: &ServerArgs) -> Result<Self, CommandError> {
        let (url, key) = (args.url()?, args.key()?);
        // A redirect would take an upload twice, or lose the key on the way.
        let client = Client::builder().connect_timeout(CONNECT).tcp_keepalive(KEEPALIVE);
        let client = args.trusting(client.redirect(Policy::none()))?;
        let client = if is_local(&url) { client.no_proxy() } else { client };
        let http = client.build().map_err(|error| CommandError::failed(root(&error)))?;
        Ok(Self { http, url, key })
    }

    /// A request to the path of these segments below the server's address.
    pub(super) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.transfer(method, path).timeout(ANSWER)
    }

    /// The same, which may take as long as its files do.
    pub(super) fn transfer(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub(super) fn get(&self, path: &[&str]) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// The head of a success.
    ///
    /// # Errors
    /// What the server refuses, and when it does not answer.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, CommandError> {
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(CommandError::failed(format!(
                "{} sends on to another address ({status}): give that one as --url",
                self.shown()
            )));
        }
        if !status.is_success() {
            let body = response.text().await.unwrap_or_default();
            return Err(CommandError::refused(status.as_u16(), &body));
        }
        Ok(response)
    }

    /// The JSON of a success.
    ///
    /// # Errors
    /// As [`Server::send`], and when the answer is no JSON.
    pub(super) async fn json(&self, request: RequestBuilder) -> Result<Value, CommandError> {
        let response = self.send(request).await?;
        let body = response.bytes().await.map_err(|error| self.lost(&error))?;
        serde_json::from_slice(&body).map_err(|_| {
            let shown = self.shown();
            CommandError::failed(format!("{shown} does not answer as lorad does: is it one?"))
        })
    }

    /// Why there is no answer.
    pub(super) fn lost(&self, error: &reqwest::Error) -> CommandError {
        let (url, cause) = (self.shown(), root(error));
        if error.is_timeout() && !error.is_connect() {
            let seconds = ANSWER.as_secs();
            return CommandError::failed(format!("{url} has not answered for {seconds} s"));
        }
        if error.is_connect() {
            return CommandError::Unreachable { url, cause };
        }
        CommandError::failed(format!("the connection to {url} broke: {cause}"))
    }

    /// The address, as people write it.
    pub(super) fn shown(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_owned()
    }
}

fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = |host: &str| host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    host == "localhost" || is_loopback(host)
}

/// The innermost cause: what the system said.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

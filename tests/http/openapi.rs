//! The API for machines, and its page.
use crate::client::Server;
use serde_json::json;

#[tokio::test]
async fn the_document_is_open_to_everybody_and_describes_itself() {
    let server = Server::golden_with("llama", &["--api-key", "secret", "--admin-key", "other"]);
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let document = answer.ok();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["paths"]["/openapi.json"]["get"]["security"], json!([]));
    let stream = &document["paths"]["/v1/completions"]["post"]["responses"]["200"]["content"];
    assert!(stream["text/event-stream"].is_object());
    let upload = &document["paths"]["/admin/adapters/{name}"]["put"]["requestBody"]["content"];
    assert!(upload["multipart/form-data"].is_object());
}

#[tokio::test]
async fn the_page_needs_nothing_but_this_server() {
    let server = Server::golden("llama");
    let page = server.get("/docs").await;
    assert_eq!(page.status.as_u16(), 200, "it leads to its first file");
    assert!(page.text.contains("swagger-ui"));
    assert!(!page.text.contains("https://"), "{}", page.text);
    let start = server.get("/docs/swagger-initializer.js").await;
    assert!(start.text.contains("/openapi.json"));
    server.get("/docs/nope").await.error(404);
    server.get("/docs/..%2Fcargo").await.error(404);
}

//! Log-probabilities in the two shapes OpenAI has for them.
use crate::generation::Token;
use serde_json::{Map, Value, json};

/// JSON has no infinity; vLLM's stand-in for it.
const LEAST: f32 = -9999.0;

fn logprob(token: &Token) -> f32 {
    token.logprob.unwrap_or(LEAST).max(LEAST)
}

/// Completions: four parallel lists. `offset` counts characters of the answer and moves on.
pub(super) fn completion(tokens: &[Token], offset: &mut usize) -> Value {
    let mut offsets = Vec::with_capacity(tokens.len());
    for token in tokens {
        offsets.push(*offset);
        *offset += token.text.chars().count();
    }
    json!({
        "text_offset": offsets,
        "token_logprobs": tokens.iter().map(logprob).collect::<Vec<_>>(),
        "tokens": tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(alternatives).collect::<Vec<_>>(),
    })
}

/// The most likely tokens and the chosen one, by text.
fn alternatives(token: &Token) -> Value {
    let mut by_text = Map::new();
    for other in token.top.iter().chain([token]) {
        by_text.entry(other.text.clone()).or_insert_with(|| json!(logprob(other)));
    }
    Value::Object(by_text)
}

/// Chat: a list of objects, each with its alternatives.
pub(super) fn chat(tokens: &[Token]) -> Value {
    let content: Vec<_> = tokens
        .iter()
        .map(|token| {
            let mut entry = chat_entry(token);
            entry["top_logprobs"] = token.top.iter().map(chat_entry).collect();
            entry
        })
        .collect();
    json!({"content": content})
}

fn chat_entry(token: &Token) -> Value {
    json!({"token": token.text, "logprob": logprob(token), "bytes": token.bytes})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, logprob: f32, top: Vec<Token>) -> Token {
        let bytes = text.as_bytes().to_vec();
        let (id, text, shown) = (1, text.to_owned(), String::new());
        Token { id, text, bytes, shown, special: false, logprob: Some(logprob), top }
    }

    #[test]
    fn completions_have_parallel_lists_and_running_offsets() {
        let top = vec![token("é", -0.5, vec![]), token("b", -1.0, vec![])];
        let tokens = [token("é", -0.5, top), token("cd", f32::NEG_INFINITY, vec![])];
        let mut offset = 3;
        let shown = completion(&tokens, &mut offset);
        assert_eq!(shown["text_offset"], json!([3, 4]));
        assert_eq!(shown["token_logprobs"], json!([-0.5, -9999.0]));
        assert_eq!(shown["tokens"], json!(["é", "cd"]));
        assert_eq!(shown["top_logprobs"], json!([{"é": -0.5, "b": -1.0}, {"cd": -9999.0}]));
        assert_eq!(offset, 6);
    }

    #[test]
    fn chat_has_an_object_a_token() {
        let tokens = [token("hi", -0.25, vec![token("ho", -2.0, vec![])])];
        let expected = json!({"content": [{
            "token": "hi", "logprob": -0.25, "bytes": [104, 105],
            "top_logprobs": [{"token": "ho", "logprob": -2.0, "bytes": [104, 111]}],
        }]});
        assert_eq!(chat(&tokens), expected);
    }
}

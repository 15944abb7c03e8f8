//! Log-probabilities in the shapes that OpenAI and vLLM have for them.
use crate::generation::Token;
use serde_json::{Map, Value, json};

/// JSON has no infinity; vLLM's stand-in for it.
const LEAST: f32 = -9999.0;

/// How a token is called.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Spelling {
    /// By its text.
    #[default]
    Text,
    /// `token_id:ID`: texts need not tell tokens apart.
    Id,
}

impl Spelling {
    fn of(self, token: &Token) -> String {
        match self {
            Self::Text => token.text.clone(),
            Self::Id => format!("token_id:{}", token.id),
        }
    }
}

/// Null for the first token of a prompt, which nothing judges.
fn logprob(token: &Token) -> Option<f32> {
    token.logprob.map(|logprob| logprob.max(LEAST))
}

/// Completions: four parallel lists, with `top` alternatives. `offset` counts characters of the text and moves on.
pub(super) fn completion<'a>(
    tokens: impl IntoIterator<Item = &'a Token>,
    (top, spelling): (usize, Spelling),
    offset: &mut usize,
) -> Value {
    let (mut offsets, mut logprobs, mut names, mut tops) = (vec![], vec![], vec![], vec![]);
    for token in tokens {
        offsets.push(*offset);
        *offset += token.shown.chars().count();
        logprobs.push(logprob(token));
        names.push(spelling.of(token));
        tops.push(token.logprob.map(|_| alternatives(token, top, spelling)));
    }
    json!({
        "text_offset": offsets,
        "token_logprobs": logprobs,
        "tokens": names,
        "top_logprobs": tops,
    })
}

/// The most likely tokens and the chosen one, by name.
fn alternatives(token: &Token, top: usize, spelling: Spelling) -> Value {
    let mut by_name = Map::new();
    for other in token.top.iter().take(top).chain([token]) {
        by_name.entry(spelling.of(other)).or_insert_with(|| json!(logprob(other)));
    }
    Value::Object(by_name)
}

/// Chat: a list of objects, each with its alternatives.
pub(super) fn chat(tokens: &[Token], spelling: Spelling) -> Value {
    let entry = |token: &Token| {
        let name = spelling.of(token);
        json!({"token": name, "logprob": logprob(token), "bytes": token.bytes})
    };
    let content: Vec<_> = tokens
        .iter()
        .map(|token| {
            let mut whole = entry(token);
            whole["top_logprobs"] = token.top.iter().map(entry).collect();
            whole
        })
        .collect();
    json!({"content": content})
}

/// vLLM's `prompt_logprobs`: by id, the prompt's own token and the most likely ones at each place.
pub(super) fn prompt(tokens: &[Token], top: usize) -> Value {
    tokens.iter().map(|token| judged(token, top)).collect()
}

fn judged(token: &Token, top: usize) -> Value {
    if token.logprob.is_none() {
        return Value::Null;
    }
    let entry = |token: &Token, rank: Option<usize>| json!({"logprob": logprob(token), "rank": rank, "decoded_token": token.text});
    let mut by_id = Map::new();
    by_id.insert(token.id.to_string(), entry(token, token.rank));
    for (other, rank) in token.top.iter().take(top).zip(1..) {
        by_id.entry(other.id.to_string()).or_insert_with(|| entry(other, Some(rank)));
    }
    Value::Object(by_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32, text: &str, logprob: f32, top: Vec<Token>) -> Token {
        let (bytes, rank) = (text.as_bytes().to_vec(), Some(2));
        let (text, shown, logprob) = (text.to_owned(), text.to_owned(), Some(logprob));
        Token { id, text, bytes, shown, special: false, logprob, rank, top }
    }

    #[test]
    fn completions_have_parallel_lists_and_running_offsets() {
        let top = vec![token(1, "é", -0.5, vec![]), token(2, "b", -1.0, vec![])];
        let tokens = [token(1, "é", -0.5, top), token(3, "cd", f32::NEG_INFINITY, vec![])];
        let mut offset = 3;
        let shown = completion(&tokens, (2, Spelling::Text), &mut offset);
        assert_eq!(shown["text_offset"], json!([3, 4]));
        assert_eq!(shown["token_logprobs"], json!([-0.5, -9999.0]));
        assert_eq!(shown["tokens"], json!(["é", "cd"]));
        assert_eq!(shown["top_logprobs"], json!([{"é": -0.5, "b": -1.0}, {"cd": -9999.0}]));
        assert_eq!(offset, 6);
        let by_id = completion(&tokens, (2, Spelling::Id), &mut offset);
        assert_eq!(by_id["tokens"], json!(["token_id:1", "token_id:3"]));
        assert_eq!(by_id["top_logprobs"][0], json!({"token_id:1": -0.5, "token_id:2": -1.0}));
    }

    #[test]
    fn nothing_judges_the_first_token() {
        let first = Token { logprob: None, ..token(1, "a", 0.0, vec![]) };
        let shown = completion([&first], (2, Spelling::Text), &mut 0);
        assert_eq!(shown["token_logprobs"], json!([null]));
        assert_eq!(shown["top_logprobs"], json!([null]));
        assert_eq!(prompt(&[first], 0), json!([null]));
    }

    #[test]
    fn an_offset_counts_what_a_token_adds_and_not_its_broken_bytes() {
        let piece =
            |text: &str, shown: &str| Token { shown: shown.into(), ..token(1, text, -1.0, vec![]) };
        let tokens = [piece("\u{fffd}", ""), piece("\u{fffd}", "é"), piece("a", "a")];
        let shown = completion(&tokens, (0, Spelling::Text), &mut 0);
        assert_eq!(shown["text_offset"], json!([0, 0, 1]));
    }

    #[test]
    fn chat_has_an_object_a_token() {
        let tokens = [token(7, "hi", -0.25, vec![token(8, "ho", -2.0, vec![])])];
        let expected = json!({"content": [{
            "token": "hi", "logprob": -0.25, "bytes": [104, 105],
            "top_logprobs": [{"token": "ho", "logprob": -2.0, "bytes": [104, 111]}],
        }]});
        assert_eq!(chat(&tokens, Spelling::Text), expected);
        assert_eq!(chat(&tokens, Spelling::Id)["content"][0]["token"], "token_id:7");
    }

    #[test]
    fn a_prompt_s_token_stands_beside_the_most_likely_ones_with_its_rank() {
        let top = vec![token(5, "b", -0.5, vec![]), token(7, "hi", -1.5, vec![])];
        let shown = prompt(&[token(7, "hi", -1.5, top)], 1);
        let expected = json!([{
            "7": {"logprob": -1.5, "rank": 2, "decoded_token": "hi"},
            "5": {"logprob": -0.5, "rank": 1, "decoded_token": "b"},
        }]);
        assert_eq!(shown, expected);
    }
}

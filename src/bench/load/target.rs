//! One server, and the body of a request to it.
use super::texts::Texts;
use serde_json::{Map, Value, json};
use std::str::FromStr;

/// Where requests go and what they say besides their prompt.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Root, without `/v1` and without a slash at its end.
    pub(super) url: String,
    /// At least one.
    pub(super) models: Vec<String>,
    pub(super) body: Fields,
    pub(super) extras: FieldSets,
    pub(super) api_key: Option<String>,
}

/// Fields of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

/// Fields for each of several requests.
#[derive(Clone, Debug, Default)]
pub(super) struct FieldSets(Vec<Map<String, Value>>);

impl FromStr for Fields {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map(Self).map_err(|error| format!("no JSON object: {error}"))
    }
}

impl FromStr for FieldSets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sets = serde_json::from_str(text);
        sets.map(Self).map_err(|error| format!("no JSON list of objects: {error}"))
    }
}

impl Target {
    /// How many kinds of request there are: models and extras go round together.
    pub(super) fn routes(&self) -> usize {
        self.models.len().max(self.extras.0.len())
    }

    /// What the figures call requests of this kind.
    pub(super) fn label(&self, route: usize) -> String {
        let model = self.model(route);
        if self.extras.0.len() > 1 { format!("{model} #{route}") } else { model.to_owned() }
    }

    /// The name that requests of this kind say.
    fn model(&self, route: usize) -> &str {
        &self.models[route % self.models.len()]
    }

    /// A streaming completion that runs to its full length.
    pub(super) fn body(&self, route: usize, prompt: &[u32], output_tokens: usize) -> Value {
        let body = json!({
            "model": self.model(route),
            "prompt": prompt,
            "max_tokens": output_tokens,
            "temperature": 0,
            "ignore_eos": true,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        self.with_fields(route, body)
    }

    /// Texts to be read.
    pub(super) fn texts(&self, route: usize, texts: &Texts, numbers: &[u32]) -> Value {
        self.with_fields(route, texts.body(self.model(route), numbers))
    }

    fn with_fields(&self, route: usize, mut body: Value) -> Value {
        let extra = self.extras.0.get(route % self.extras.0.len().max(1));
        for (name, value) in self.body.0.iter().chain(extra.into_iter().flatten()) {
            body[name] = value.clone();
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_extras_go_round_and_win_over_the_defaults() {
        let target = Target {
            url: String::new(),
            models: vec!["base".into()],
            body: r#"{"temperature": 1, "cache_prompt": false}"#.parse().unwrap(),
            extras: r#"[{"lora": 0}, {"lora": 1}]"#.parse().unwrap(),
            api_key: None,
        };
        assert_eq!(target.routes(), 2);
        assert_eq!(target.label(1), "base #1");
        let body = target.body(1, &[7, 8], 3);
        assert_eq!((&body["lora"], &body["temperature"]), (&json!(1), &json!(1)));
        assert_eq!((&body["prompt"], &body["max_tokens"]), (&json!([7, 8]), &json!(3)));
        assert_eq!(target.body(2, &[], 1)["lora"], 0);
    }
}

//! The adapters that a request names beside its model, in each dialect's spelling.
use super::ApiError;
use crate::{adapter::AdapterRef, generation::AdapterMix};
use serde_json::{Map, Value};

/// How a field names adapters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spelling {
    /// lorad's own: `["a", {"name": "b", "weight": 0.5}]`.
    Adapters,
    /// llama.cpp's: `[{"id": 0, "scale": 0.5}]`; an adapter that is not named is not applied.
    Lora,
    /// LoRAX's: `{"ids": […], "weights": […], "merge_strategy": "linear"}`.
    Merged,
}

/// A field that may name adapters: its path, its spelling, and its value where it has one.
pub(super) type Field<'a> = (&'static str, Spelling, Option<&'a Value>);

/// Adapters as a request names them, not looked up yet.
#[derive(Debug, Default, PartialEq)]
pub(super) struct NamedAdapters {
    /// The field they come from, also when it is an empty list; empty where there is none.
    pub(super) field: &'static str,
    pub(super) entries: Vec<NamedAdapter>,
}

/// One of them.
#[derive(Debug, PartialEq)]
pub(super) struct NamedAdapter {
    pub(super) who: Who,
    pub(super) weight: f32,
    /// The path to what names it.
    pub(super) path: String,
}

/// What names an adapter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Who {
    Name(AdapterRef),
    /// The registry's number.
    Number(u64),
}

impl NamedAdapters {
    /// Reads the one of `fields` that names adapters, if any does.
    ///
    /// # Errors
    /// The path of what is wrong, or of the second field that names adapters.
    pub(super) fn read(fields: &[Field<'_>]) -> Result<Self, ApiError> {
        let mut named = Self::default();
        for &(field, spelling, value) in fields {
            let Some(value) = value else { continue };
            let entries = match spelling {
                Spelling::Adapters => adapters(field, value)?,
                Spelling::Lora => lora(field, value)?,
                Spelling::Merged => merged(field, value)?,
            };
            if entries.is_empty() {
                // Nothing is said too: what requests get that say nothing is not for this one.
                named.field = if named.field.is_empty() { field } else { named.field };
                continue;
            }
            if !named.entries.is_empty() {
                return Err(ApiError::exclusive(field, named.field));
            }
            named = Self { field, entries };
        }
        Ok(named)
    }
}

fn adapters(field: &str, value: &Value) -> Result<Vec<NamedAdapter>, ApiError> {
    let shape = "must be a list of names and of objects with a `name` and a `weight`";
    let entry = |(path, entry): (String, &Value)| match entry {
        Value::String(text) => Ok(NamedAdapter { who: name(&path, text)?, weight: 1.0, path }),
        Value::Object(entry) => {
            only(&path, entry, &["name", "weight"])?;
            let weight = weight(&format!("{path}.weight"), entry.get("weight"))?.unwrap_or(1.0);
            let path = format!("{path}.name");
            let who = text(&path, entry.get("name")).and_then(|text| name(&path, text))?;
            Ok(NamedAdapter { who, weight, path })
        }
        _ => {
            let message =
                format!("`{path}` must be a name, or an object with a `name` and a `weight`");
            Err(ApiError::malformed(&path, message))
        }
    };
    list(field, value, shape)?.map(entry).collect()
}

fn lora(field: &str, value: &Value) -> Result<Vec<NamedAdapter>, ApiError> {
    let shape = "must be a list of objects with an `id` or a `name`, and a `scale`";
    let mut entries: Vec<NamedAdapter> = Vec::new();
    for (path, entry) in list(field, value, shape)? {
        let Some(entry) = entry.as_object() else {
            let message = format!("`{path}` must be an object with an `id` and a `scale`");
            return Err(ApiError::malformed(&path, message));
        };
        only(&path, entry, &["id", "name", "scale"])?;
        let scale = format!("{path}.scale");
        let missing = || ApiError::malformed(&scale, format!("`{scale}` is missing"));
        let weight = weight(&scale, entry.get("scale"))?.ok_or_else(missing)?;
        let (who, path) = id_or_name(&path, entry)?;
        if entries.iter().any(|other| other.who == who) {
            let message = format!("`{path}` names an adapter that an entry before it names");
            return Err(ApiError::invalid(&path, message));
        }
        entries.push(NamedAdapter { who, weight, path });
    }
    Ok(entries)
}

fn id_or_name(path: &str, entry: &Map<String, Value>) -> Result<(Who, String), ApiError> {
    let given = |key| entry.get(key).filter(|value| !value.is_null());
    let (id, by_name) = (format!("{path}.id"), format!("{path}.name"));
    match (given("id"), given("name")) {
        (None, Some(value)) => Ok((name(&by_name, text(&by_name, Some(value))?)?, by_name)),
        (Some(value), None) => {
            let wrong = || {
                let message = format!("`{id}` must be an id of GET /lora-adapters: 0 or more");
                ApiError::malformed(&id, message)
            };
            Ok((Who::Number(value.as_u64().ok_or_else(wrong)?), id))
        }
        _ => {
            let message = format!("`{path}` must have either an `id` or a `name`");
            Err(ApiError::malformed(&id, message))
        }
    }
}

fn merged(field: &str, value: &Value) -> Result<Vec<NamedAdapter>, ApiError> {
    let Some(merge) = value.as_object() else {
        let message = format!("`{field}` must be an object with `ids` and `weights`");
        return Err(ApiError::malformed(field, message));
    };
    // What the other strategies need has no meaning for this one, and clients send it with every one.
    let known = ["ids", "weights", "merge_strategy", "density", "majority_sign_method"];
    only(field, merge, &known)?;
    check_strategy(field, merge.get("merge_strategy"))?;
    let (ids, weights) = (format!("{field}.ids"), format!("{field}.weights"));
    let part = |key| merge.get(key).unwrap_or(&Value::Null);
    let names: Vec<_> = list(&ids, part("ids"), "must be a list of adapter ids")?.collect();
    let numbers: Vec<_> =
        list(&weights, part("weights"), "must be a list of numbers, one for each id")?.collect();
    if names.is_empty() || names.len() != numbers.len() {
        let (n, m) = (names.len(), numbers.len());
        let message =
            format!("`{field}` needs at least one id, and a weight for each: it has {n} and {m}");
        return Err(ApiError::invalid(&weights, message));
    }
    let entry = |((path, id), (at, given)): ((String, &Value), (String, &Value))| {
        let missing = || ApiError::malformed(&at, format!("`{at}` must be a number"));
        let weight = weight(&at, Some(given))?.ok_or_else(missing)?;
        Ok(NamedAdapter { who: name(&path, text(&path, Some(id))?)?, weight, path })
    };
    names.into_iter().zip(numbers).map(entry).collect()
}

fn check_strategy(field: &str, strategy: Option<&Value>) -> Result<(), ApiError> {
    match strategy {
        None | Some(Value::Null) => Ok(()),
        Some(strategy) if strategy == "linear" => Ok(()),
        Some(other) => {
            let path = format!("{field}.merge_strategy");
            let message = format!(
                "`{path}` can only be `linear`, which adds up what the adapters change, not {other}"
            );
            Err(ApiError::unsupported(&path, message))
        }
    }
}

/// The entries of a list with their paths; no longer than a mix may be.
fn list<'a>(
    path: &str,
    value: &'a Value,
    shape: &str,
) -> Result<impl Iterator<Item = (String, &'a Value)>, ApiError> {
    let Some(entries) = value.as_array() else {
        return Err(ApiError::malformed(path, format!("`{path}` {shape}")));
    };
    let most = AdapterMix::MAX_PARTS;
    if entries.len() > most {
        let message = format!("`{path}` may name {most} adapters, not {}", entries.len());
        return Err(ApiError::invalid(path, message));
    }
    let path = path.to_owned();
    Ok(entries.iter().enumerate().map(move |(at, entry)| (format!("{path}[{at}]"), entry)))
}

/// A misspelt key would change the answer without a word.
fn only(path: &str, entry: &Map<String, Value>, known: &[&str]) -> Result<(), ApiError> {
    match entry.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let path = format!("{path}.{}", key.escape_debug());
            let message = format!("`{path}` is not known; there are {}", known.join(", "));
            Err(ApiError::malformed(&path, message))
        }
    }
}

fn text<'a>(path: &str, value: Option<&'a Value>) -> Result<&'a str, ApiError> {
    let wrong = || ApiError::malformed(path, format!("`{path}` must be the name of an adapter"));
    value.and_then(Value::as_str).ok_or_else(wrong)
}

/// `name` or `name@version`.
fn name(path: &str, text: &str) -> Result<Who, ApiError> {
    match text.parse() {
        Ok(wanted) => Ok(Who::Name(wanted)),
        Err(error) => Err(ApiError::from(error).with_param(path)),
    }
}

fn weight(path: &str, value: Option<&Value>) -> Result<Option<f32>, ApiError> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let most = AdapterMix::MAX_WEIGHT;
    match value.as_f64() {
        Some(weight) if weight.abs() <= f64::from(most) => Ok(Some(weight as f32)),
        Some(_) => {
            let message = format!("`{path}` must be between -{most} and {most}");
            Err(ApiError::invalid(path, message))
        }
        None => Err(ApiError::malformed(path, format!("`{path}` must be a number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(spelling: Spelling, value: &Value) -> Result<Vec<(String, f32, String)>, ApiError> {
        let named = NamedAdapters::read(&[("f", spelling, Some(value))])?;
        let shown = |entry: NamedAdapter| {
            let who = match entry.who {
                Who::Name(name) => name.to_string(),
                Who::Number(number) => number.to_string(),
            };
            (who, entry.weight, entry.path)
        };
        Ok(named.entries.into_iter().map(shown).collect())
    }

    fn entry(who: &str, weight: f32, path: &str) -> (String, f32, String) {
        (who.into(), weight, path.into())
    }

    #[test]
    fn every_spelling_is_read() {
        let adapters = json!(["a", {"name": "b", "weight": -0.5}, {"name": "c", "weight": null}]);
        let expected =
            [entry("a", 1.0, "f[0]"), entry("b", -0.5, "f[1].name"), entry("c", 1.0, "f[2].name")];
        assert_eq!(read(Spelling::Adapters, &adapters).expect("valid"), expected);

        let lora = json!([{"id": 3, "scale": 0.25}, {"name": "b", "scale": 0}]);
        let expected = [entry("3", 0.25, "f[0].id"), entry("b", 0.0, "f[1].name")];
        assert_eq!(read(Spelling::Lora, &lora).expect("valid"), expected);

        let merged = json!({"ids": ["a", "b"], "weights": [0.7, 1], "merge_strategy": "linear",
                            "density": 0.0, "majority_sign_method": "total"});
        let expected = [entry("a", 0.7, "f.ids[0]"), entry("b", 1.0, "f.ids[1]")];
        assert_eq!(read(Spelling::Merged, &merged).expect("valid"), expected);
        for empty in [Spelling::Adapters, Spelling::Lora] {
            assert_eq!(read(empty, &json!([])).expect("the base"), []);
        }
    }

    #[test]
    fn whatever_is_wrong_is_named_by_its_path() {
        use Spelling::{Adapters, Lora, Merged};
        for (spelling, value, path) in [
            (Adapters, json!("a"), "f"),
            (Adapters, json!({"name": "a"}), "f"),
            (Adapters, json!([1]), "f[0]"),
            (Adapters, json!(["a", {}]), "f[1].name"),
            (Adapters, json!(["../a"]), "f[0]"),
            (Adapters, json!([{"name": "a@12"}]), "f[0].name"),
            (Adapters, json!([{"name": "a", "weight": "1"}]), "f[0].weight"),
            (Adapters, json!([{"name": "a", "weight": 100.5}]), "f[0].weight"),
            (Adapters, json!([{"name": "a", "weight": 1e300}]), "f[0].weight"),
            (Adapters, json!([{"name": "a", "scale": 1}]), "f[0].scale"),
            (Adapters, json!(vec!["a"; 17]), "f"),
            (Lora, json!({"id": 0}), "f"),
            (Lora, json!([0]), "f[0]"),
            (Lora, json!([{"id": 0}]), "f[0].scale"),
            (Lora, json!([{"scale": 1}]), "f[0].id"),
            (Lora, json!([{"id": -1, "scale": 1}]), "f[0].id"),
            (Lora, json!([{"id": 0, "name": "a", "scale": 1}]), "f[0].id"),
            (Lora, json!([{"id": 1, "scale": 1}, {"id": 1, "scale": 0}]), "f[1].id"),
            (Merged, json!(["a"]), "f"),
            (Merged, json!({"ids": [], "weights": []}), "f.weights"),
            (Merged, json!({"ids": ["a"], "weights": [1, 2]}), "f.weights"),
            (Merged, json!({"ids": ["a"]}), "f.weights"),
            (Merged, json!({"weights": [1]}), "f.ids"),
            (Merged, json!({"ids": [1], "weights": [1]}), "f.ids[0]"),
            (Merged, json!({"ids": ["a"], "weights": [null]}), "f.weights[0]"),
            (Merged, json!({"ids": ["a"], "weights": [1], "densty": 1}), "f.densty"),
        ] {
            let error = read(spelling, &value).expect_err("refused").openai();
            assert_eq!(error["error"]["param"], path, "{value}");
            assert_eq!(error["error"]["code"], 400, "{value}");
        }
    }

    #[test]
    fn other_strategies_than_linear_are_refused_by_name() {
        for strategy in ["ties", "dare_linear", "dare_ties"] {
            let merge = json!({"ids": ["a"], "weights": [1], "merge_strategy": strategy});
            let error = read(Spelling::Merged, &merge).expect_err("refused");
            assert!(error.message().contains(strategy), "{}", error.message());
            assert_eq!(error.lorax_status().as_u16(), 422);
        }
    }

    #[test]
    fn only_one_field_names_adapters() {
        let (some, none) = (json!(["a"]), json!([]));
        let lora = json!([{"id": 0, "scale": 1}]);
        let both = [("x", Spelling::Adapters, Some(&some)), ("y", Spelling::Lora, Some(&lora))];
        let error = NamedAdapters::read(&both).expect_err("refused").openai();
        assert_eq!(error["error"]["param"], "y");
        assert_eq!(error["error"]["reason"], "exclusive_fields");
        let one = [("x", Spelling::Adapters, Some(&none)), ("y", Spelling::Lora, Some(&lora))];
        assert_eq!(NamedAdapters::read(&one).expect("valid").field, "y");
        assert_eq!(NamedAdapters::read(&[]).expect("valid"), NamedAdapters::default());
    }
}

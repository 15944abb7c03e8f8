//! `adapter_config.json` of a PEFT LoRA, checked.
use super::{
    extras::Extras,
    fields,
    module::Module,
    paths::Paths,
    pattern::Pattern,
    targets::{Include, Modules, Targets},
    task::Task,
};
use crate::adapter::{
    AdapterError, AdapterLimits,
    format::{labels::LabelNames, tensors::shown},
};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Regular expressions, beyond plain names, that one pattern field may hold: each is tried on every module.
const MAX_EXPRESSIONS: usize = 64;

/// What the tensors are read by.
#[derive(Debug)]
pub(super) struct LoraConfig {
    pub(super) task: Task,
    pub(super) labels: LabelNames,
    /// How the tensors spell paths.
    pub(super) paths: Paths,
    pub(super) rank: Patterned<usize>,
    pub(super) alpha: Patterned<f64>,
    pub(super) rslora: bool,
    pub(super) targets: Targets,
    pub(super) extras: Extras,
    pub(super) base_model: Option<String>,
    /// Unknown fields that were let pass.
    pub(super) ignored: Vec<String>,
}

/// A value with exceptions by module: the first pattern that matches, in the file's order.
#[derive(Debug)]
pub(super) struct Patterned<T> {
    default: T,
    overrides: Vec<(Pattern, T)>,
}

impl<T: Copy> Patterned<T> {
    pub(super) fn default(&self) -> T {
        self.default
    }

    /// # Errors
    /// When a regular expression takes too long.
    pub(super) fn at(&self, path: &str) -> Result<T, AdapterError> {
        for (pattern, value) in &self.overrides {
            if pattern.matches(path)? {
                return Ok(*value);
            }
        }
        Ok(self.default)
    }
}

impl LoraConfig {
    /// # Errors
    /// When a field is missing, has the wrong type, is out of range, or asks for what is not served.
    pub(super) fn read(
        map: &Map<String, Value>,
        limits: &AdapterLimits,
    ) -> Result<Self, AdapterError> {
        let ignored = fields::check(map, limits)?;
        let task = Task::read(map.get("task_type").unwrap_or(&Value::Null))?;
        let rank = |value: &Value| read_rank(value, limits.max_adapter_rank);
        Ok(Self {
            task,
            labels: LabelNames::read(map)?,
            paths: Paths::default(),
            rank: patterned(map, "r", "rank_pattern", rank)?,
            alpha: patterned(map, "lora_alpha", "alpha_pattern", read_alpha)?,
            rslora: read_bool(map, "use_rslora")?,
            targets: read_targets(map)?,
            extras: Extras::read(map)?,
            base_model: map.get("base_model_name_or_path").and_then(Value::as_str).map(Into::into),
            ignored,
        })
    }

    /// What the file calls a module.
    pub(super) fn path(&self, module: Module) -> String {
        self.paths.of(module)
    }

    /// Factor on `B·A` at `path`: `alpha / rank`, with rsLoRA `alpha / √rank` (`peft.tuners.lora.LoraLayer`).
    pub(super) fn scaling(&self, path: &str, rank: usize) -> Result<f32, AdapterError> {
        let (alpha, rank) = (self.alpha.at(path)?, rank as f64);
        Ok((if self.rslora { alpha / rank.sqrt() } else { alpha / rank }) as f32)
    }
}

pub(super) fn wrong(field: &str, value: &Value, wanted: &str) -> AdapterError {
    AdapterError::invalid(format!(
        "adapter_config.json has `{field}` = {}, which is not {wanted}",
        shown(value)
    ))
}

fn read_rank(value: &Value, limit: usize) -> Result<usize, AdapterError> {
    let rank = value.as_u64().filter(|rank| *rank > 0);
    let rank = rank.ok_or_else(|| wrong("r or rank_pattern", value, "a rank of 1 or more"))?;
    if rank > limit as u64 {
        return Err(AdapterError::invalid(format!(
            "adapter_config.json has rank {rank}, the limit is {limit}: raise --max-adapter-rank"
        )));
    }
    Ok(rank as usize)
}

fn read_alpha(value: &Value) -> Result<f64, AdapterError> {
    let fits = |alpha: &f64| (*alpha as f32).is_finite();
    let alpha = value.as_f64().filter(fits);
    alpha.ok_or_else(|| wrong("lora_alpha or alpha_pattern", value, "a finite number"))
}

pub(super) fn read_bool(map: &Map<String, Value>, field: &str) -> Result<bool, AdapterError> {
    match map.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => Err(wrong(field, other, "true or false")),
    }
}

fn patterned<T>(
    map: &Map<String, Value>,
    field: &'static str,
    pattern_field: &'static str,
    read: impl Fn(&Value) -> Result<T, AdapterError>,
) -> Result<Patterned<T>, AdapterError> {
    // PEFT's default, for configs written by hand.
    let default = map.get(field).map_or_else(|| read(&Value::from(8)), &read)?;
    let entries = match map.get(pattern_field) {
        None | Some(Value::Null) => return Ok(Patterned { default, overrides: Vec::new() }),
        Some(Value::Object(entries)) => entries,
        Some(other) => return Err(wrong(pattern_field, other, "an object")),
    };
    let overrides = entries
        .iter()
        .map(|(source, value)| Ok((Pattern::suffix(pattern_field, source)?, read(value)?)))
        .collect::<Result<Vec<_>, AdapterError>>()?;
    if overrides.iter().filter(|(pattern, _)| !pattern.is_plain()).count() > MAX_EXPRESSIONS {
        return Err(AdapterError::invalid(format!(
            "adapter_config.json has more than {MAX_EXPRESSIONS} regular expressions in `{pattern_field}`: write \
             modules' names"
        )));
    }
    Ok(Patterned { default, overrides })
}

fn read_targets(map: &Map<String, Value>) -> Result<Targets, AdapterError> {
    let field = |name: &str| map.get(name).filter(|value| !value.is_null());
    let include = match field("target_modules") {
        Some(Value::String(text)) if text.eq_ignore_ascii_case("all-linear") => Include::AllLinear,
        Some(value) => Include::Modules(read_modules("target_modules", value)?),
        None => {
            return Err(AdapterError::invalid(
                "adapter_config.json has no `target_modules`: name the layers the adapter changes",
            ));
        }
    };
    let exclude = match field("exclude_modules") {
        Some(value) if *value != Value::Array(Vec::new()) && value != "" => {
            Some(read_modules("exclude_modules", value)?)
        }
        _ => None,
    };
    let layers = read_layers(field("layers_to_transform"))?;
    let layers_patterns = read_layers_patterns(field("layers_pattern"))?;
    let by_expression = field("target_modules").is_some_and(Value::is_string);
    if by_expression && (field("layers_to_transform").is_some() || !layers_patterns.is_empty()) {
        return Err(AdapterError::invalid(
            "adapter_config.json has `layers_to_transform` or `layers_pattern` beside a regular expression in \
             `target_modules`: they apply to a list of modules only",
        ));
    }
    if layers.is_empty() && !layers_patterns.is_empty() {
        return Err(AdapterError::invalid(
            "adapter_config.json has `layers_pattern` without `layers_to_transform`",
        ));
    }
    Ok(Targets { include, exclude, layers, layers_patterns })
}

fn read_modules(field: &'static str, value: &Value) -> Result<Modules, AdapterError> {
    match value {
        Value::String(source) => Ok(Modules::Matching(Pattern::full(field, source)?)),
        Value::Array(items) => {
            let names: Option<HashSet<_>> =
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            names.map(Modules::Named).ok_or_else(|| wrong(field, value, "a list of names"))
        }
        other => Err(wrong(field, other, "a list of names or a regular expression")),
    }
}

fn read_layers(value: Option<&Value>) -> Result<HashSet<usize>, AdapterError> {
    let Some(value) = value else { return Ok(HashSet::new()) };
    let index = |item: &Value| item.as_u64().map(|index| index as usize);
    let layers = match value {
        Value::Array(items) => items.iter().map(index).collect::<Option<HashSet<_>>>(),
        single => index(single).map(|index| HashSet::from([index])),
    };
    layers.ok_or_else(|| wrong("layers_to_transform", value, "a layer's index or a list of them"))
}

fn read_layers_patterns(value: Option<&Value>) -> Result<Vec<Pattern>, AdapterError> {
    let sources: Vec<&str> = match value {
        None => return Ok(Vec::new()),
        Some(Value::String(source)) if source.is_empty() => return Ok(Vec::new()),
        Some(Value::String(source)) => vec![source],
        Some(Value::Array(items)) if items.len() <= MAX_EXPRESSIONS => {
            let names: Option<_> = items.iter().map(Value::as_str).collect();
            names.ok_or_else(|| {
                wrong("layers_pattern", value.unwrap_or(&Value::Null), "a list of names")
            })?
        }
        Some(other) => return Err(wrong("layers_pattern", other, "a name or a list of names")),
    };
    if sources.iter().any(|source| source.is_empty()) {
        return Err(AdapterError::invalid(
            "adapter_config.json has an empty name in `layers_pattern`",
        ));
    }
    sources.into_iter().map(|source| Pattern::layer("layers_pattern", source)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(changes: Value) -> Result<LoraConfig, String> {
        let mut map = Map::from_iter([
            ("r".to_owned(), json!(4)),
            ("lora_alpha".to_owned(), json!(8)),
            ("target_modules".to_owned(), json!(["q_proj"])),
        ]);
        let Value::Object(changes) = changes else { panic!("an object") };
        map.extend(changes);
        LoraConfig::read(&map, &AdapterLimits::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_pattern_in_the_file_wins() {
        let config = read(json!({
            "use_rslora": true,
            "rank_pattern": {"layers.0.self_attn.v_proj": 12, "q_proj": 2, ".*": 16},
            "alpha_pattern": {"self_attn.q_proj": 6},
        }))
        .expect("a config");
        let q = "model.layers.0.self_attn.q_proj";
        assert_eq!(config.rank.at(q).expect("cheap"), 2);
        assert_eq!(config.rank.at("model.layers.0.self_attn.v_proj").expect("cheap"), 12);
        assert_eq!(config.rank.at("model.layers.1.self_attn.v_proj").expect("cheap"), 16);
        assert!((config.scaling(q, 2).expect("cheap") - 6.0 / 2f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        for (changes, reason) in [
            (json!({"r": 0}), "1 or more"),
            (json!({"r": -4}), "1 or more"),
            (json!({"r": 4.5}), "1 or more"),
            (json!({"r": "4"}), "1 or more"),
            (json!({"r": 2_147_483_648_u64}), "--max-adapter-rank"),
            (json!({"rank_pattern": {"q_proj": 0}}), "1 or more"),
            (json!({"rank_pattern": {"(": 4}}), "rank_pattern"),
            (json!({"rank_pattern": [4]}), "an object"),
            (json!({"lora_alpha": "8"}), "finite number"),
            (json!({"lora_alpha": 1e300}), "finite number"),
            (json!({"use_rslora": 1}), "true or false"),
            (json!({"task_type": "SEQ_2_SEQ_LM"}), "SEQ_2_SEQ_LM"),
            (json!({"target_modules": null}), "target_modules"),
            (json!({"target_modules": [1]}), "list of names"),
            (json!({"target_modules": ".*q_proj", "layers_to_transform": [0]}), "list of modules"),
            (json!({"layers_to_transform": [-1]}), "index"),
            (json!({"layers_pattern": "layers"}), "without"),
        ] {
            let error = read(changes.clone()).expect_err(&changes.to_string());
            assert!(error.contains(reason), "{changes}: {error}");
        }
    }
}

//! The names of an adapter's labels: read out of its config, and written there before the content is hashed, so that they
//! are part of the version.
use super::{AdapterFiles, CONFIG_FILE, tensors::shown};
use crate::{
    adapter::AdapterError,
    lora::{HeadKind, Labels, Reading},
};
use bytes::Bytes;
use serde_json::{Map, Value};
use std::{collections::HashSet, sync::Arc};

/// The config of the model that an adapter was trained in, as `transformers` writes it: it knows the labels.
pub(in crate::adapter) const MODEL_CONFIG_FILE: &str = "config.json";
/// Longest name of a label, bytes.
const MAX_NAME: usize = 512;

const ID2LABEL: &str = "id2label";
const LABEL2ID: &str = "label2id";
const NUM_LABELS: &str = "num_labels";
const PROBLEM_TYPE: &str = "problem_type";

/// What a config says of labels.
#[derive(Clone, Debug, Default)]
pub(in crate::adapter) struct LabelNames {
    names: Option<Arc<[String]>>,
    /// How many, where it names none.
    count: Option<usize>,
    reading: Option<Reading>,
}

impl LabelNames {
    /// # Errors
    /// When a field has the wrong type, two contradict each other, or names are no names.
    pub(super) fn read(config: &Map<String, Value>) -> Result<Self, AdapterError> {
        let by_id = field(config, ID2LABEL).map(names_by_id).transpose()?;
        let by_label = field(config, LABEL2ID).map(ids_by_name).transpose()?;
        let count = field(config, NUM_LABELS).map(read_count).transpose()?;
        if let (Some(by_id), Some(by_label)) = (&by_id, &by_label)
            && by_id != by_label
        {
            return Err(wrong("`id2label` and `label2id`, which contradict each other: keep one"));
        }
        let names = by_id.or(by_label);
        if let (Some(names), Some(count)) = (&names, count)
            && names.len() != count
        {
            let names = names.len();
            return Err(wrong(&format!("`num_labels` = {count} and names for {names} labels")));
        }
        if let Some(names) = &names {
            check_names(names)?;
        }
        let reading = field(config, PROBLEM_TYPE).map(read_problem).transpose()?;
        Ok(Self { names: names.map(Arc::from), count, reading })
    }

    /// Whether it says anything.
    pub(super) fn is_said(&self) -> bool {
        self.names.is_some() || self.count.is_some()
    }

    /// The labels of a head of `count` rows over a base with these: the adapter's own, or the base's where there are as
    /// many, or numbers.
    ///
    /// # Errors
    /// When the config has another number of labels.
    pub(super) fn of(
        &self,
        count: usize,
        kind: HeadKind,
        base: Option<&Labels>,
    ) -> Result<Labels, AdapterError> {
        let said = self.names.as_ref().map(|names| names.len()).or(self.count);
        if let Some(said) = said.filter(|said| *said != count) {
            return Err(wrong(&format!(
                "{said} labels (`id2label`, from the adapter, from the config.json beside it or given with the upload), and \
                 the head scores {count}: give each row of the head its name"
            )));
        }
        let base = base.filter(|base| base.kind == kind);
        let named = base.filter(|base| base.names.len() == count);
        let names = self.names.clone().or_else(|| named.map(|base| Arc::clone(&base.names)));
        let numbered = || (0..count).map(|id| format!("LABEL_{id}")).collect();
        // What one label says is not what several say.
        let alike = base.filter(|base| (base.names.len() == 1) == (count == 1));
        let alone = if count == 1 { Reading::Independent } else { Reading::OneOf };
        Ok(Labels {
            kind,
            names: names.unwrap_or_else(numbered),
            reading: match self.reading {
                // So do transformers' pipelines.
                Some(Reading::OneOf) if count == 1 => Reading::Independent,
                Some(reading) => reading,
                None => alike.map_or(alone, |base| base.reading),
            },
        })
    }
}

fn field<'a>(config: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    config.get(name).filter(|value| !value.is_null())
}

fn wrong(problem: &str) -> AdapterError {
    AdapterError::invalid(format!("{CONFIG_FILE} has {problem}"))
}

fn names_by_id(value: &Value) -> Result<Vec<String>, AdapterError> {
    let refuse = || {
        wrong(&format!(
            "`{ID2LABEL}` = {}, which does not name the labels \"0\", \"1\" and so on, each once",
            shown(value)
        ))
    };
    let entries = value.as_object().filter(|entries| !entries.is_empty()).ok_or_else(refuse)?;
    let name = |id: usize| entries.get(&id.to_string())?.as_str().map(str::to_owned);
    (0..entries.len()).map(name).collect::<Option<Vec<_>>>().ok_or_else(refuse)
}

fn ids_by_name(value: &Value) -> Result<Vec<String>, AdapterError> {
    let refuse = || {
        wrong(&format!(
            "`{LABEL2ID}` = {}, which does not number labels 0, 1 and so on, each once",
            shown(value)
        ))
    };
    let entries = value.as_object().filter(|entries| !entries.is_empty()).ok_or_else(refuse)?;
    let mut names = vec![None; entries.len()];
    for (name, id) in entries {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        *id.and_then(|id| names.get_mut(id)).ok_or_else(refuse)? = Some(name.clone());
    }
    names.into_iter().collect::<Option<Vec<_>>>().ok_or_else(refuse)
}

fn read_count(value: &Value) -> Result<usize, AdapterError> {
    let count =
        value.as_u64().filter(|count| *count > 0).and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| {
        wrong(&format!("`{NUM_LABELS}` = {}, which is no number of labels", shown(value)))
    })
}

fn read_problem(value: &Value) -> Result<Reading, AdapterError> {
    match value.as_str() {
        Some("single_label_classification") => Ok(Reading::OneOf),
        Some("multi_label_classification") => Ok(Reading::Independent),
        Some("regression") => Ok(Reading::Raw),
        _ => Err(wrong(&format!(
            "`{PROBLEM_TYPE}` = {}: single_label_classification, multi_label_classification and regression are served",
            shown(value)
        ))),
    }
}

/// Names are shown, and asked for; two that are one could not be told apart.
fn check_names(names: &[String]) -> Result<(), AdapterError> {
    let mut seen = HashSet::new();
    for name in names {
        let problem = if name.trim().is_empty() {
            "is empty"
        } else if name.len() > MAX_NAME {
            "is too long"
        } else if name.chars().any(char::is_control) {
            "has control characters"
        } else if !seen.insert(name) {
            "comes twice"
        } else {
            continue;
        };
        let name: String = name.chars().take(60).collect();
        return Err(AdapterError::invalid(format!(
            "the label `{}` {problem}: give each label a name of its own",
            name.escape_debug()
        )));
    }
    Ok(())
}

/// Names of labels out of a text that has commas between them.
pub fn split_labels(text: &str) -> Vec<String> {
    text.split(',').map(|name| name.trim().to_owned()).collect()
}

impl AdapterFiles {
    /// The same adapter with these labels in its config, in the order of the head's rows; whatever names it had go.
    ///
    /// # Errors
    /// When names are no names, or a GGUF file should hold them.
    pub fn with_labels(self, names: &[String]) -> Result<Self, AdapterError> {
        if names.is_empty() {
            return Err(AdapterError::invalid(
                "`labels` names none: write them with commas between them",
            ));
        }
        check_names(names)?;
        let Self::Peft { config, weights } = self else {
            return Err(AdapterError::unsupported(
                "labels belong to a classification head, and a GGUF adapter has none: upload the PEFT adapter",
            ));
        };
        let Ok(mut map) = serde_json::from_slice::<Map<String, Value>>(&config) else {
            // Whoever parses it says what is wrong.
            return Ok(Self::Peft { config, weights });
        };
        let same = LabelNames::read(&map).is_ok_and(|had| had.names.as_deref() == Some(names));
        if same {
            return Ok(Self::Peft { config, weights });
        }
        let by_id =
            names.iter().enumerate().map(|(id, name)| (id.to_string(), Value::from(name.as_str())));
        map.insert(ID2LABEL.into(), by_id.collect::<Map<_, _>>().into());
        // Else it could contradict.
        for former in [LABEL2ID, NUM_LABELS] {
            map.shift_remove(former);
        }
        Ok(Self::Peft { config: written(&map)?, weights })
    }

    /// The same adapter with what the config of the model that it was trained in says of labels, where its own says
    /// nothing.
    ///
    /// # Errors
    /// When it is a classifier's, and what lies beside it is no config.
    pub(in crate::adapter) fn beside(self, model: Option<&Bytes>) -> Result<Self, AdapterError> {
        let (Self::Peft { config, weights }, Some(model)) = (&self, model) else { return Ok(self) };
        let Some(mut map) = unlabelled(config) else { return Ok(self) };
        let found: Map<String, Value> = serde_json::from_slice(model).map_err(|error| {
            AdapterError::invalid(format!(
                "`{MODEL_CONFIG_FILE}` beside the adapter is not a JSON object ({error}): mend it, or leave it out"
            ))
        })?;
        let mut changed = false;
        for name in [ID2LABEL, PROBLEM_TYPE] {
            if let (Some(value), None) = (field(&found, name), field(&map, name)) {
                map.insert(name.into(), value.clone());
                changed = true;
            }
        }
        if !changed {
            return Ok(self);
        }
        Ok(Self::Peft { config: written(&map)?, weights: weights.clone() })
    }
}

/// Whether the adapter may have its labels from the config of the model that it was trained in.
pub(in crate::adapter) fn wants_model_config(config: &[u8]) -> bool {
    unlabelled(config).is_some()
}

/// The config, of a classifier without names of labels.
fn unlabelled(config: &[u8]) -> Option<Map<String, Value>> {
    let map: Map<String, Value> = serde_json::from_slice(config).ok()?;
    let task = map.get("task_type").and_then(Value::as_str)?;
    let named = field(&map, ID2LABEL).or_else(|| field(&map, LABEL2ID));
    (matches!(task, "SEQ_CLS" | "TOKEN_CLS") && named.is_none()).then_some(map)
}

fn written(config: &Map<String, Value>) -> Result<Bytes, AdapterError> {
    let text = serde_json::to_vec_pretty(config);
    text.map(Bytes::from)
        .map_err(|error| AdapterError::invalid(format!("{CONFIG_FILE} cannot be written: {error}")))
}

//! What an alias does, as it is written and as it is checked.
use super::{AliasError, Guard, Target};
use serde::{Deserialize, Serialize, Serializer};

/// Most targets of one alias.
const MAX_TARGETS: usize = 16;
/// Largest weight; shares count, not sums.
const MAX_WEIGHT: f64 = 1e6;
/// Longest name of a header or a field, bytes.
const MAX_STICKY_NAME: usize = 64;

/// An alias as a client writes it, and as it lies in the store. Unknown fields are errors.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AliasDraft {
    /// At least one, at most 16.
    pub targets: Vec<TargetDraft>,
    /// What keeps a caller at one target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyDraft>,
    /// A model whose answers are only compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<String>,
    /// When to go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
}

/// One target as a client writes it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TargetDraft {
    /// `name`, `name@version` or the base model.
    pub model: String,
    /// Its share, in any unit; may be left out where there is one target.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "whole_where_it_is_whole"
    )]
    pub weight: Option<f64>,
}

/// Either of both.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StickyDraft {
    /// A request header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// A text field of the request's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// What requests with equal values have in common: they get the same target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Sticky {
    /// The value of this header, in lower case.
    Header(String),
    /// The value of this text field of the body.
    Field(String),
}

/// A target and its part of the requests.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedTarget {
    /// What answers.
    pub target: Target,
    /// Finite, 0 or more.
    pub weight: f64,
}

/// What an alias does. Checked: 1 to 16 different targets, at least one of them with a weight above 0.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "AliasDraft", into = "AliasDraft")]
pub struct AliasForm {
    /// In the client's order.
    pub targets: Vec<WeightedTarget>,
    /// What keeps a caller at one target.
    pub sticky: Option<Sticky>,
    /// What answers besides, to be compared.
    pub shadow: Option<Target>,
    /// When to go back.
    pub guard: Option<Guard>,
}

impl AliasDraft {
    /// The checked form; `base` is what clients call the base model.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(self, base: &str) -> Result<AliasForm, AliasError> {
        let count = self.targets.len();
        if !(1..=MAX_TARGETS).contains(&count) {
            let message = format!("`targets` must have 1 to {MAX_TARGETS} entries, not {count}");
            return Err(AliasError::invalid("targets", message));
        }
        let mut targets: Vec<WeightedTarget> = Vec::with_capacity(count);
        for (at, draft) in self.targets.into_iter().enumerate() {
            let target = draft.check(at, count, base)?;
            if targets.iter().any(|other| other.target == target.target) {
                let field = format!("targets[{at}].model");
                let message = format!("`{field}` names a target that an entry before it names");
                return Err(AliasError::invalid(field, message));
            }
            targets.push(target);
        }
        if targets.iter().all(|target| target.weight == 0.0) {
            let message = "one of `targets` must have a `weight` above 0";
            return Err(AliasError::invalid("targets", message));
        }
        let sticky = self.sticky.map(StickyDraft::check).transpose()?;
        let shadow = self.shadow.map(|text| target("shadow", &text, base)).transpose()?;
        self.guard.as_ref().map_or(Ok(()), Guard::check)?;
        Ok(AliasForm { targets, sticky, shadow, guard: self.guard })
    }
}

impl TargetDraft {
    fn check(self, at: usize, count: usize, base: &str) -> Result<WeightedTarget, AliasError> {
        let field = format!("targets[{at}].weight");
        let weight = match self.weight {
            Some(weight) if (0.0..=MAX_WEIGHT).contains(&weight) => weight,
            Some(_) => {
                let message = format!("`{field}` must be between 0 and {MAX_WEIGHT}");
                return Err(AliasError::invalid(field, message));
            }
            None if count == 1 => 1.0,
            None => {
                let message = format!("`{field}` is missing; with several targets each needs one");
                return Err(AliasError::invalid(field, message));
            }
        };
        Ok(WeightedTarget {
            target: target(&format!("targets[{at}].model"), &self.model, base)?,
            weight,
        })
    }
}

impl StickyDraft {
    fn check(self) -> Result<Sticky, AliasError> {
        let (kind, name) = match (self.header, self.field) {
            (Some(header), None) => ("header", header.to_ascii_lowercase()),
            (None, Some(field)) => ("field", field),
            _ => {
                let message = "`sticky` must have either a `header` or a `field`";
                return Err(AliasError::invalid("sticky", message));
            }
        };
        let is_name = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        if !(1..=MAX_STICKY_NAME).contains(&name.len()) || !name.bytes().all(is_name) {
            let path = format!("sticky.{kind}");
            let message = format!(
                "`{path}` must be 1 to {MAX_STICKY_NAME} of A-Z, a-z, 0-9, `-`, `_` and `.`"
            );
            return Err(AliasError::invalid(path, message));
        }
        Ok(if kind == "header" { Sticky::Header(name) } else { Sticky::Field(name) })
    }
}

fn target(field: &str, text: &str, base: &str) -> Result<Target, AliasError> {
    Target::read(text, base)
        .map_err(|error| AliasError::invalid(field, format!("`{field}`: {error}")))
}

impl AliasForm {
    /// As a client writes it.
    pub fn shown(&self, base: &str) -> AliasDraft {
        let target = |target: &WeightedTarget| TargetDraft {
            model: target.target.shown(base),
            weight: Some(target.weight),
        };
        let sticky = self.sticky.clone().map(|sticky| match sticky {
            Sticky::Header(header) => StickyDraft { header: Some(header), field: None },
            Sticky::Field(field) => StickyDraft { header: None, field: Some(field) },
        });
        AliasDraft {
            targets: self.targets.iter().map(target).collect(),
            sticky,
            shadow: self.shadow.as_ref().map(|shadow| shadow.shown(base)),
            guard: self.guard.clone(),
        }
    }

    /// A target's part of all requests, 0 to 1; 0 for what is no target.
    pub fn share(&self, wanted: &Target) -> f64 {
        let total: f64 = self.targets.iter().map(|target| target.weight).sum();
        let found = self.targets.iter().find(|target| target.target == *wanted);
        found.map_or(0.0, |target| target.weight / total)
    }

    /// Everything that requests are sent to, the shadow last.
    pub fn named(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().map(|target| &target.target).chain(&self.shadow)
    }

    /// The same without requests for `failing`; `None` where nothing would be left.
    pub(super) fn without(&self, failing: &Target) -> Option<Self> {
        let mut rest = self.clone();
        for target in rest.targets.iter_mut().filter(|target| target.target == *failing) {
            target.weight = 0.0;
        }
        rest.targets.iter().any(|target| target.weight > 0.0).then_some(rest)
    }
}

impl TryFrom<AliasDraft> for AliasForm {
    type Error = AliasError;

    fn try_from(draft: AliasDraft) -> Result<Self, AliasError> {
        draft.check(&Target::Base.to_string())
    }
}

impl From<AliasForm> for AliasDraft {
    fn from(form: AliasForm) -> Self {
        form.shown(&Target::Base.to_string())
    }
}

/// `90`, not `90.0`.
#[expect(clippy::ref_option, reason = "serde's form")]
fn whole_where_it_is_whole<S: Serializer>(
    weight: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match weight {
        Some(weight) if weight.fract() == 0.0 => serializer.serialize_u64(*weight as u64),
        weight => weight.serialize(serializer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Classified;
    use serde_json::{Value, json};

    fn check(body: &Value) -> Result<AliasForm, AliasError> {
        serde_json::from_value::<AliasDraft>(body.clone()).expect("a draft").check("org/base")
    }

    #[test]
    fn a_form_is_stored_and_shown_as_it_was_written() {
        let body = json!({
            "targets": [{"model": "a", "weight": 90}, {"model": "org/base", "weight": 0.5}],
            "sticky": {"header": "x-user"}, "shadow": "org/base",
            "guard": {"max_error_rate": 0.05, "min_requests": 7, "window_seconds": 60},
        });
        let form = check(&body).expect("valid");
        assert_eq!(serde_json::to_value(form.shown("org/base")).expect("JSON"), body);
        assert_eq!(form.targets[1].target, Target::Base);
        let stored = serde_json::to_string(&form).expect("JSON");
        assert!(!stored.contains("org/base"), "the base may be called otherwise tomorrow");
        assert_eq!(serde_json::from_str::<AliasForm>(&stored).expect("a form"), form);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let one = |target: Value| json!({"targets": [{"model": "a", "weight": 1}, target]});
        let with = |field: &str, value: Value| json!({"targets": [{"model": "a"}], field: value});
        let many: Vec<_> =
            (0..17).map(|i| json!({"model": format!("a{i}"), "weight": 1})).collect();
        for (body, field) in [
            (json!({"targets": []}), "targets"),
            (json!({"targets": many}), "targets"),
            (json!({"targets": [{"model": "a", "weight": 0}]}), "targets"),
            (one(json!({"model": "b"})), "targets[1].weight"),
            (one(json!({"model": "b", "weight": -1})), "targets[1].weight"),
            (one(json!({"model": "b", "weight": 1e7})), "targets[1].weight"),
            (one(json!({"model": "../b", "weight": 1})), "targets[1].model"),
            (one(json!({"model": "a@12", "weight": 1})), "targets[1].model"),
            (one(json!({"model": "a", "weight": 1})), "targets[1].model"),
            (with("sticky", json!({})), "sticky"),
            (with("sticky", json!({"header": "a", "field": "b"})), "sticky"),
            (with("sticky", json!({"header": "a b"})), "sticky.header"),
            (with("sticky", json!({"field": ""})), "sticky.field"),
            (with("shadow", json!("a b")), "shadow"),
            (with("guard", json!({})), "guard"),
            (with("guard", json!({"max_error_rate": 1.5})), "guard.max_error_rate"),
            (with("guard", json!({"max_non_finite": 0, "min_requests": 0})), "guard.min_requests"),
            (
                with("guard", json!({"max_non_finite": 0, "window_seconds": 0})),
                "guard.window_seconds",
            ),
        ] {
            let error = check(&body).expect_err("refused");
            assert_eq!(error.param(), Some(field), "{body}");
            assert!(error.to_string().contains(field.split('[').next().expect("text")), "{error}");
        }
    }

    #[test]
    fn shares_are_of_all_weights() {
        let body = json!({"targets": [{"model": "a", "weight": 30}, {"model": "b", "weight": 10}]});
        let form = check(&body).expect("valid");
        let share = |text: &str| form.share(&text.parse().expect("a target"));
        assert_eq!((share("a"), share("b"), share("c")), (0.75, 0.25, 0.0));
        let rest = form.without(&"b".parse().expect("a target")).expect("a is left");
        assert_eq!(rest.share(&"a".parse().expect("a target")), 1.0);
        assert!(rest.without(&"a".parse().expect("a target")).is_none());
    }
}

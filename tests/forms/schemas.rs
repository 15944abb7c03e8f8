//! Small JSON schemas, and a check by hand of what they say.
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A schema whose answers are short.
pub(crate) fn schema() -> impl Strategy<Value = Value> {
    let whole = (-50_i64..50, 0_i64..50).prop_map(
        |(least, more)| json!({"type": "integer", "minimum": least, "maximum": least + more}),
    );
    let text = (0_usize..3, 0_usize..4).prop_map(
        |(least, more)| json!({"type": "string", "minLength": least, "maxLength": least + more}),
    );
    let words = prop::collection::vec("[a-z\"\\\\ é€🚀]{0,4}", 1..4);
    let one_of = words.prop_map(|words| json!({"enum": words}));
    let leaf = prop_oneof![
        Just(json!({"type": "null"})),
        Just(json!({"type": "boolean"})),
        Just(json!({"type": ["null", "boolean"]})),
        Just(json!({"const": {"a": [1, null, "x"]}})),
        whole,
        text,
        one_of,
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = (inner.clone(), 0_usize..3, 0_usize..3).prop_map(|(items, least, more)| {
            json!({"type": "array", "items": items, "minItems": least, "maxItems": least + more})
        });
        let fields = prop::collection::vec((inner.clone(), any::<bool>()), 0..4);
        let object = fields.prop_map(|fields| {
            let name = |index: usize| format!("f{index} \"é");
            let required: Vec<String> =
                (0..fields.len()).filter(|index| fields[*index].1).map(name).collect();
            let properties: Map<String, Value> = fields
                .into_iter()
                .enumerate()
                .map(|(index, (schema, _))| (name(index), schema))
                .collect();
            json!({"type": "object", "properties": properties, "required": required,
                "additionalProperties": false})
        });
        let any = prop::collection::vec(inner, 1..3).prop_map(|schemas| json!({"anyOf": schemas}));
        prop_oneof![list, object, any]
    })
}

/// Whether `value` is what `schema` asks for, as far as [`schema`] goes.
pub(crate) fn accepts(schema: &Value, value: &Value) -> bool {
    if let Some(schemas) = schema["anyOf"].as_array() {
        return schemas.iter().any(|schema| accepts(schema, value));
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.contains(value);
    }
    if let Some(only) = schema.get("const") {
        return only == value;
    }
    let number = |field: &str| schema[field].as_i64().expect("a number");
    let count = |field: &str| schema[field].as_u64().expect("a number") as usize;
    match (schema["type"].as_str(), value) {
        (Some("null") | None, Value::Null) | (Some("boolean") | None, Value::Bool(_)) => true,
        // `-0` is an integer too, though this reader has it as a float.
        (Some("integer"), Value::Number(n)) => n.as_f64().is_some_and(|n| {
            n.fract() == 0.0 && (number("minimum")..=number("maximum")).contains(&(n as i64))
        }),
        (Some("string"), Value::String(text)) => {
            (count("minLength")..=count("maxLength")).contains(&text.chars().count())
        }
        (Some("array"), Value::Array(items)) => {
            (count("minItems")..=count("maxItems")).contains(&items.len())
                && items.iter().all(|item| accepts(&schema["items"], item))
        }
        (Some("object"), Value::Object(fields)) => {
            let required = schema["required"].as_array().expect("a list");
            let is_there =
                |name: &Value| name.as_str().is_some_and(|name| fields.contains_key(name));
            required.iter().all(is_there)
                && fields.iter().all(|(name, value)| {
                    let schema = schema["properties"].get(name);
                    schema.is_some_and(|schema| accepts(schema, value))
                })
        }
        _ => false,
    }
}

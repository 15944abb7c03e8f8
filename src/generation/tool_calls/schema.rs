//! A function's parameters as a schema that ends.
use serde_json::{Map, Value, json};

/// The schema of a function's arguments: they are an object in any case.
pub(super) fn arguments(parameters: Option<&Value>) -> Value {
    let mut schema = parameters.and_then(Value::as_object).cloned().unwrap_or_default();
    schema.insert("type".into(), "object".into());
    let mut schema = Value::Object(schema);
    // What is put together of parts must not be closed part by part.
    if !has_key(&schema, "allOf") {
        close(&mut schema);
    }
    as_written(schema)
}

/// JSON as templates write it.
pub(super) fn as_written(schema: Value) -> Value {
    let mut schema = match schema {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let style =
        json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    schema.insert("x-guidance".into(), style);
    schema.into()
}

/// Objects have the properties that they list and no others, unless they say otherwise: a model that is held to a schema may
/// find no end in an object that is open.
fn close(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    for name in ["properties", "$defs", "definitions"] {
        if let Some(Value::Object(inner)) = fields.get_mut(name) {
            inner.values_mut().for_each(close);
        }
    }
    for name in ["anyOf", "oneOf", "prefixItems"] {
        if let Some(Value::Array(inner)) = fields.get_mut(name) {
            inner.iter_mut().for_each(close);
        }
    }
    if let Some(items) = fields.get_mut("items") {
        close(items);
    }
    let is_open = [
        "additionalProperties",
        "unevaluatedProperties",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "anyOf",
        "oneOf",
        "$ref",
    ];
    if fields.contains_key("properties") && !is_open.iter().any(|key| fields.contains_key(*key)) {
        fields.insert("additionalProperties".into(), false.into());
    }
}

fn has_key(value: &Value, key: &str) -> bool {
    match value {
        Value::Array(values) => values.iter().any(|value| has_key(value, key)),
        Value::Object(fields) => {
            fields.contains_key(key) || fields.values().any(|value| has_key(value, key))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without what says how JSON is written.
    fn closed(parameters: &Value) -> Value {
        let mut schema = arguments(Some(parameters));
        let fields = schema.as_object_mut().expect("an object");
        assert!(fields.remove("x-guidance").is_some());
        schema
    }

    #[test]
    fn an_object_has_the_properties_that_it_lists() {
        let inner = json!({"type": "object", "properties": {"x": {"type": "integer"}}});
        let shut = json!({"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": false});
        let schema = json!({
            "properties": {"a": inner, "b": {"type": "array", "items": inner}, "c": {"anyOf": [inner, {"type": "null"}]}},
            "$defs": {"d": inner},
        });
        let expected = json!({
            "properties": {"a": shut, "b": {"type": "array", "items": shut}, "c": {"anyOf": [shut, {"type": "null"}]}},
            "$defs": {"d": shut}, "type": "object", "additionalProperties": false,
        });
        assert_eq!(closed(&schema), expected);
    }

    #[test]
    fn what_says_otherwise_or_lists_nothing_stays_open() {
        for schema in [
            json!({"type": "object"}),
            json!({"type": "object", "properties": {}, "additionalProperties": true}),
            json!({"type": "object", "properties": {}, "patternProperties": {"^a": {}}}),
            json!({"type": "object", "properties": {}, "allOf": [{"properties": {"a": {}}}]}),
            json!({"type": "object", "properties": {}, "anyOf": [{"required": ["a"]}]}),
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
        ] {
            assert_eq!(closed(&schema), schema);
        }
        assert_eq!(arguments(None)["type"], "object");
    }
}

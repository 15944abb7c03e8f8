//! What a form of answers costs: compiling a schema, and the masks of an answer, token by token.
//!
//! With the tokenizer of `LORAD_TEST_MODEL` where that is set, else with one of 320 tokens. A grammar's threads and masks are
//! llguidance's; what the model costs stands in `lorad bench`.
#[path = "../tests/forms/service.rs"]
mod service;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use lorad::{engine::TokenMask, generation::AnswerForm};
use serde_json::{Value, json};
use service::Forms;
use std::{cell::Cell, fs, path::PathBuf};

/// An answer of [`schema`], as models write it.
const ANSWER: &str = r#"{"name": "Alice Johnson", "age": 31, "email": "alice.johnson@example.com", "role": "admin", "address": {"street": "12 Harbour Lane", "city": "Lisbon", "zip": "1100-148"}, "tags": ["early riser", "left-handed", "plays the cello"]}"#;

/// `number` makes it another schema.
fn schema(number: u64) -> Value {
    let text = json!({"type": "string"});
    json!({
        "title": format!("person {number}"),
        "type": "object",
        "required": ["name", "age", "email", "role", "address", "tags"],
        "additionalProperties": false,
        "properties": {
            "name": text,
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "email": {"type": "string", "pattern": "^[a-z.]+@[a-z.]+$"},
            "role": {"enum": ["admin", "editor", "reader"]},
            "address": {
                "type": "object", "required": ["street", "city", "zip"], "additionalProperties": false,
                "properties": {"street": text, "city": text, "zip": text},
            },
            "tags": {"type": "array", "items": text, "maxItems": 5},
        },
    })
}

fn forms(c: &mut Criterion) {
    let model = std::env::var_os("LORAD_TEST_MODEL").map(PathBuf::from);
    let tokenizer = match model {
        Some(model) => fs::read(model.join("tokenizer.json")).expect("a tokenizer"),
        None => include_bytes!("../tests/golden/llama/tokenizer.json").to_vec(),
    };
    let forms = Forms::of(&tokenizer);
    let number = Cell::new(0);
    let compile = || {
        number.set(number.get() + 1);
        forms.compile(AnswerForm::JsonSchema(schema(number.get()))).expect("a schema")
    };
    c.bench_function("compile a schema", |b| b.iter(compile));
    let again = || forms.compile(AnswerForm::JsonSchema(schema(0))).expect("a schema");
    c.bench_function("find a schema again", |b| b.iter(again));
    let ids = forms.ids(ANSWER);
    let mut mask = TokenMask::new(forms.vocab);
    c.bench_function(&format!("masks of an answer of {} tokens", ids.len()), |b| {
        b.iter_batched_ref(
            again,
            |form| {
                for id in &ids {
                    form.allow(&mut mask).expect("a mask");
                    form.accept(*id).expect("an answer of the schema");
                }
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, forms);
criterion_main!(benches);

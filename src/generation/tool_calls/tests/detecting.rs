//! What is made of templates and of the setting.
use super::*;
use crate::generation::chat_template::ChatTemplate;
use clap::ValueEnum;
use serde_json::Value;
use std::collections::BTreeMap;

const HEADERS_WITH_TOOLS: &str =
    include_str!("../../../../tests/golden/chat_templates/headers-with-tools.json");
const TOOLS_IN_XML: &str =
    include_str!("../../../../tests/golden/chat_templates/tools-in-xml.json");
const WITHOUT_TOOLS: [&str; 4] = [
    include_str!("../../../../tests/golden/chat_templates/chatml.json"),
    include_str!("../../../../tests/golden/chat_templates/headers.json"),
    include_str!("../../../../tests/golden/chat_templates/instructions.json"),
    include_str!("../../../../tests/golden/chat_templates/thinking.json"),
];

/// A list of calls after a mark, with ids of nine letters and digits and no others.
const LISTS: &str = r#"{%- for m in messages -%}
{%- if m.role == 'user' -%}
{%- if tools -%}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{%- endif -%}
[INST]{{ m.content }}[/INST]
{%- elif m.tool_calls is defined and m.tool_calls is not none -%}
[TOOL_CALLS] [
{%- for call in m.tool_calls -%}
{%- set out = call.function | tojson -%}
{{- out[:-1] -}}
{%- if call.id is not defined or call.id | length != 9 -%}{{ raise_exception('ids have nine characters') }}{%- endif -%}
{{- ', "id": "' + call.id + '"}' -}}
{%- if not loop.last -%}{{ ', ' }}{%- endif -%}
{%- endfor -%}
]{{ eos_token }}
{%- else -%}{{ m.content }}{%- endif -%}
{%- endfor -%}"#;

fn seen(source: &str) -> Seen {
    let tokens = [("eos_token".to_owned(), "</s>".to_owned())];
    let template = ChatTemplate::compile(source, BTreeMap::from(tokens)).expect("a template");
    Seen::of(&template)
}

fn golden(file: &str) -> Seen {
    let file: Value = serde_json::from_str(file).expect("JSON");
    seen(file["template"].as_str().expect("a template"))
}

/// A template that shows tools and writes each call as `call` does.
fn writing(call: &str) -> String {
    format!(
        "{{% for t in tools %}}{{{{ t | tojson }}}}{{% endfor %}}{{% for m in messages %}}<{{{{ m.role }}}}>\
         {{{{ m.content }}}}{{% for c in m.tool_calls %}}{call}{{% endfor %}}<end>{{% endfor %}}\
         {{% if add_generation_prompt %}}<assistant>{{% endif %}}"
    )
}

#[test]
fn each_family_is_known_by_the_call_that_its_template_writes() {
    let expected = |format, parallel| Seen { shows_tools: true, format: Some(format), parallel };
    assert_eq!(golden(TOOLS_IN_XML), expected(ToolCallFormat::Hermes, true));
    assert_eq!(golden(HEADERS_WITH_TOOLS), expected(ToolCallFormat::Llama3, false));
    assert_eq!(seen(LISTS), expected(ToolCallFormat::Mistral, true));
    let json =
        writing(r#"{{ {"name": c.function.name, "arguments": c.function.arguments} | tojson }}"#);
    assert_eq!(seen(&json), expected(ToolCallFormat::Json, true));
}

#[test]
fn a_template_that_shows_no_tools_has_no_format() {
    for file in WITHOUT_TOOLS {
        assert_eq!(golden(file), Seen::default());
    }
    assert_eq!(seen("{{ messages[0].content }}"), Seen::default());
    assert_eq!(seen("{{ raise_exception('never') }}"), Seen::default());
}

#[test]
fn a_form_of_calls_that_is_not_known_is_none() {
    let xml = writing("<tool_call><function={{ c.function.name }}></function></tool_call>");
    assert_eq!(seen(&xml), Seen { shows_tools: true, format: None, parallel: false });
}

#[test]
fn where_no_call_can_be_shown_the_instructions_say_how_they_are_written() {
    let instructed = "{% if tools %}{{ tools | tojson }} Answer with <tool_call>{\"name\": …, \"arguments\": …}\
                      </tool_call>{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";
    let expected =
        Seen { shows_tools: true, format: Some(ToolCallFormat::Hermes), parallel: false };
    assert_eq!(seen(instructed), expected);
}

#[test]
fn the_setting_counts_for_more_than_the_template_where_tools_are_shown() {
    let unknown = Seen { shows_tools: true, format: None, parallel: false };
    let known = Seen { format: Some(ToolCallFormat::Hermes), ..unknown };
    let format = |seen, setting| {
        ToolSupport::new(seen, setting, |_| None).calls().map(ToolCalls::format).ok()
    };
    for called in ALL {
        let setting =
            ToolCallSetting::from_str(called.as_str(), false).expect("a value of the setting");
        assert_eq!(format(unknown, setting), Some(called));
    }
    assert_eq!(format(known, ToolCallSetting::Auto), Some(ToolCallFormat::Hermes));
    assert_eq!(format(known, ToolCallSetting::None), None);
    assert_eq!(format(unknown, ToolCallSetting::Auto), None);
    assert_eq!(
        format(Seen::default(), ToolCallSetting::Json),
        None,
        "the model would see no tools"
    );
}

#[test]
fn marks_that_steer_the_model_are_known_by_their_tokens() {
    let seen = Seen { shows_tools: true, format: Some(ToolCallFormat::Hermes), parallel: true };
    let special = |mark: &str| (mark == "</tool_call>").then_some(7);
    assert_eq!(ToolSupport::new(seen, ToolCallSetting::Auto, special).marks(), [7]);
    assert_eq!(ToolSupport::new(seen, ToolCallSetting::None, special).marks(), [0; 0]);
}

//! What requests may say of tools, and what they may not.
use super::*;

/// The text of the prompt that a body makes.
async fn prompt(server: &Server, body: &Value) -> String {
    let tokens = server.post("/tokenize", body).await.ok()["tokens"].clone();
    let text = server.post("/detokenize", &json!({"tokens": tokens})).await.ok()["prompt"].clone();
    text.as_str().expect("text").to_owned()
}

#[tokio::test]
async fn a_base_whose_template_knows_no_tools_says_so() {
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    for setting in [ToolCallSetting::Auto, ToolCallSetting::Hermes] {
        let server = Server::start(with_tools(Script::say(&["hi"]), template, setting));
        let error = server.post(PATH, &asking()).await.error(400);
        assert_eq!(
            (&error["reason"], &error["param"]),
            (&json!("tools_not_supported"), &json!("tools"))
        );
        assert_eq!(server.post("/tokenize", &asking()).await.error(400), error);
        let hidden = with(asking(), json!({"tool_choice": "none"}));
        assert_eq!(server.post(PATH, &hidden).await.ok()["choices"][0]["message"]["content"], "hi");
    }
}

#[tokio::test]
async fn a_form_of_calls_that_is_not_known_is_refused_with_the_setting_that_helps() {
    let template = "{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}";
    for (setting, mentions) in
        [(ToolCallSetting::Auto, "--tool-call-format"), (ToolCallSetting::None, "switched off")]
    {
        let server = Server::start(with_tools(Script::Echo, template, setting));
        let error = server.post(PATH, &asking()).await.error(400);
        assert_eq!(error["reason"], "tools_not_supported");
        assert!(error["message"].as_str().expect("text").contains(mentions), "{error}");
    }
}

#[tokio::test]
async fn a_later_turn_is_written_as_the_model_would_have() {
    let call = json!({"id": "abcdefghi", "type": "function",
                      "function": {"name": "add", "arguments": "{\"a\":1,\"b\":[\"é\"]}"}});
    let messages = json!([
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": null, "tool_calls": [call], "function_call": null, "refusal": null},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "3"},
    ]);
    let object = "{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": [\"é\"]}";
    for (template, expected) in [
        (HERMES, format!("assistant\n<tool_call>\n{object}}}\n</tool_call><|im_end|>\n")),
        (
            LLAMA3,
            format!(
                "<|assistant|>{}}}<|end|><|tool|>3<|end|>",
                object.replace("arguments", "parameters")
            ),
        ),
        (
            MISTRAL,
            format!(
                "[TOOL_CALLS][{object}, \"id\": \"abcdefghi\"}}][TOOL_RESULTS]{{\"id\": \"abcdefghi\", \
                 \"content\": 3}}[/TOOL_RESULTS]"
            ),
        ),
        (PLAIN_JSON, format!("<|assistant|>{object}}}<|end|>")),
    ] {
        let server = server(template, &[]);
        let text = prompt(&server, &with(asking(), json!({"messages": messages}))).await;
        assert!(text.contains(&expected), "{text}\nlacks\n{expected}");
    }
}

#[tokio::test]
async fn a_tool_s_answer_is_named_for_templates_that_want_it() {
    let call =
        json!({"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}});
    let messages = json!([
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "3"},
    ]);
    let server = server(&HERMES.replace("{{ m.role }}", "{{ m.role }} {{ m.name }}"), &[]);
    let text = prompt(&server, &with(asking(), json!({"messages": messages}))).await;
    assert!(text.contains("<|im_start|>tool add\n3"), "{text}");
}

#[tokio::test]
async fn arguments_that_are_no_json_are_shown_as_they_are() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "add", "arguments": "{\"a\": one"}});
    let messages =
        json!([{"role": "user", "content": "Hello"}, {"role": "assistant", "tool_calls": [call]}]);
    let server = server(
        "{{ tools }}{% for m in messages %}{% for c in m.tool_calls %}<tool_call>\
        {\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments if c.function.arguments is string \
        else c.function.arguments | tojson }}}</tool_call>{% endfor %}{% endfor %}",
        &[],
    );
    let text = prompt(&server, &with(asking(), json!({"messages": messages}))).await;
    assert!(text.contains("\"arguments\": {\"a\": one}"), "{text}");
}

#[tokio::test]
async fn tools_are_shown_to_the_model_unless_none_may_be_called() {
    let server = server(HERMES, &[]);
    let (auto, none) = (asking(), with(asking(), json!({"tool_choice": "none"})));
    assert!(prompt(&server, &auto).await.contains("get_weather"));
    let plain = json!({"messages": auto["messages"]});
    assert_eq!(prompt(&server, &none).await, prompt(&server, &plain).await);
}

#[tokio::test]
async fn every_mistake_has_its_status_and_names_its_field() {
    let server = server(HERMES, &[]);
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    let calls = |call: Value| json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call]}]});
    for (fields, status, param) in [
        (json!({"tools": []}), 400, "tools"),
        (json!({"tools": "add"}), 400, "tools"),
        (json!({"tools": [{"type": "function", "function": {}}]}), 400, "tools[0].function.name"),
        (json!({"tools": [function("a"), function("a")]}), 400, "tools[1].function.name"),
        (json!({"tools": null, "tool_choice": "auto"}), 400, "tool_choice"),
        (json!({"tools": null, "tool_choice": function("add")}), 400, "tool_choice"),
        (json!({"tool_choice": "sometimes"}), 400, "tool_choice"),
        (json!({"tool_choice": function("nope")}), 400, "tool_choice.function.name"),
        (json!({"parallel_tool_calls": "no"}), 400, "parallel_tool_calls"),
        (json!({"functions": [{"name": "add"}]}), 501, "functions"),
        (json!({"function_call": "auto"}), 501, "function_call"),
        (
            calls(json!({"id": "a", "function": {"name": "f", "arguments": {}}})),
            400,
            "messages[1].tool_calls[0].function.arguments",
        ),
        (json!({"messages": [{"role": "tool", "content": "3"}]}), 400, "messages[0].tool_call_id"),
    ] {
        let error = server.post(PATH, &with(asking(), fields.clone())).await.error(status);
        assert_eq!(error["param"], param, "{fields}: {error}");
        assert_eq!(error["code"], status, "{fields}");
    }
}

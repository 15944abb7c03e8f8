"""Chat templates in the manner of well-known model families, rendered by transformers."""

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from tiny import HERE, byte_level_bpe, fresh, write_json

ROOT = HERE / "chat_templates"
BOS, EOS = "<|im_start|>", "<|im_end|>"

HI = [{"role": "user", "content": "Hello, who are you?"}]
SYSTEM = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "  What is 2 + 2?\n"}]
LONG = [*SYSTEM, {"role": "assistant", "content": "4"}, {"role": "user", "content": "And doubled? <|im_end|> \"quoted\" & <b>ü</b> 🚀"}]
LAST_ASSISTANT = [*HI, {"role": "assistant", "content": " I am a model. "}]
TWICE = [*HI, *HI]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "First part."}, {"type": "text", "text": "Second part."}]}]
THOUGHT = [*HI, {"role": "assistant", "content": "<think>\nShort is best.\n</think>\n\nA model."}, {"role": "user", "content": "Which?"}]
TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "The weather at a place, today's.", "parameters": {
        "type": "object", "properties": {"place": {"type": "string", "description": "Town, e.g. \"Köln\""}, "days": {"type": "integer"}},
        "required": ["place"]}}}]
CALLED = [*HI, {"role": "assistant", "content": "", "tool_calls": [
    {"type": "function", "function": {"name": "weather", "arguments": {"place": "Köln", "days": 2}}}]},
    {"role": "tool", "content": "{\"sky\": \"clear\"}"}, {"role": "tool", "content": "{\"sky\": \"rain\"}"}]

TEMPLATES = {
    "chatml": ("""{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
               [dict(messages=HI), dict(messages=SYSTEM), dict(messages=LONG), dict(messages=LAST_ASSISTANT, add_generation_prompt=False)]),
    "default-system": ("""{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + ('' if loop.last and not add_generation_prompt else '\n') }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
                       [dict(messages=HI), dict(messages=SYSTEM), dict(messages=LAST_ASSISTANT, add_generation_prompt=False)]),
    "headers": ("""{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""",
                [dict(messages=HI), dict(messages=LONG), dict(messages=LAST_ASSISTANT, add_generation_prompt=False)]),
    "headers-with-tools": ("""{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none and tools is defined %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- "Today: " + date_string + "\n\n" }}
{%- if tools %}
    {{- "These functions can be called:\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
""", [dict(messages=HI, variables={"date_string": "01 Feb 2025"}), dict(messages=SYSTEM, tools=TOOLS, variables={"date_string": "01 Feb 2025"}),
      dict(messages=CALLED, tools=TOOLS, variables={"date_string": "01 Feb 2025"}),
      dict(messages=[{"role": "assistant", "content": "", "tool_calls": CALLED[1]["tool_calls"] * 2}], variables={"date_string": "01 Feb 2025"})]),
    "instructions": ("""{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}{{- bos_token }}{%- for message in loop_messages %}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('After the optional system message, roles must alternate user/assistant.') }}{%- endif %}{%- if message['role'] == 'user' %}{%- if loop.first and system_message is defined %}{{- ' [INST] ' + system_message + '\n\n' + message['content'] + ' [/INST]' }}{%- else %}{{- ' [INST] ' + message['content'] + ' [/INST]' }}{%- endif %}{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] | trim + eos_token }}{%- else %}{{- raise_exception('Only user and assistant roles are supported.') }}{%- endif %}{%- endfor %}""",
                     [dict(messages=HI), dict(messages=LONG), dict(messages=LAST_ASSISTANT, add_generation_prompt=False), dict(messages=TWICE)]),
    "tools-in-xml": ("""{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nYou may call these functions:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nCall one as <tool_call>\\n{\\"name\\": <name>, \\"arguments\\": <object>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""", [dict(messages=HI), dict(messages=SYSTEM), dict(messages=SYSTEM, tools=TOOLS), dict(messages=CALLED, tools=TOOLS)]),
    "thinking": ("""{%- set ns = namespace(last_query_index=messages | length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if not ns.found and message.role == "user" and message.content is string and not (message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.found = true %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- set reasoning = '' %}
    {%- if message.role == "assistant" and '</think>' in content %}
        {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if reasoning and loop.index0 > ns.last_query_index %}
        {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""", [dict(messages=HI), dict(messages=HI, variables={"enable_thinking": False}), dict(messages=THOUGHT),
      dict(messages=THOUGHT[:2], add_generation_prompt=False)]),
    "turns": ("""{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' }}{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] | trim }}{{ '' if loop.last else ' ' }}{% endfor %}{% endif %}{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}""",
              [dict(messages=HI), dict(messages=LAST_ASSISTANT, add_generation_prompt=False), dict(messages=PARTS), dict(messages=SYSTEM)]),
    "block-whitespace": ("""
{% for message in messages %}
    {% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
    {% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
    {% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
    {% endif %}
    {# lines of blocks and comments leave nothing behind #}
    {% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
    {% endif %}
{% endfor %}
""", [dict(messages=HI), dict(messages=LONG), dict(messages=LAST_ASSISTANT, add_generation_prompt=False)]),
    "macros-and-loops": ("""{%- macro turn(role, text) -%}
<{{ role | upper }}>{{ text | trim | replace('"', "'") }}</{{ role | upper }}>
{%- endmacro -%}
{%- set seen = namespace(system=false, turns=0) -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{%- set seen.system = true -%}{%- continue -%}{%- endif -%}
{%- if seen.turns >= 2 -%}{{ '...' }}{%- break -%}{%- endif -%}
{%- set seen.turns = seen.turns + 1 -%}
{{ turn(message.role, message.content) }}
{%- endfor -%}
{%- for name, value in {'system': seen.system, 'turns': seen.turns, 'roles': messages | map(attribute='role') | unique | join('+')}.items() -%}
{{ '\n' }}{{ name }}={{ value if value is not boolean else ('on' if value else 'off') }}
{%- endfor -%}
{{ '\n' }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ 'yes' if 'user' in messages[-1]['role'] else 'no' }} {{ strftime_now('%Y') | length }} {{ messages[-1].get('name', 'nobody') | default('none', true) }}
""", [dict(messages=HI), dict(messages=LONG)]),
}


def render(tokenizer, case):
    tokenizer.chat_template = case["template"]
    return tokenizer.apply_chat_template(case["messages"], tools=case.get("tools"), tokenize=False,
                                         add_generation_prompt=case["add_generation_prompt"], **case.get("variables", {}))


def make():
    fresh(ROOT)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe("smollm", 320), bos_token=BOS, eos_token=EOS)
    count = 0
    for name, (template, cases) in TEMPLATES.items():
        rows = []
        for case in cases:
            case = {"add_generation_prompt": True, **case}
            try:
                case["expected"] = render(tokenizer, {"template": template, **case})
            except TemplateError as error:
                case["error"] = str(error)
            rows.append(case)
        count += len(rows)
        write_json(ROOT / f"{name}.json", {"template": template, "bos_token": BOS, "eos_token": EOS, "cases": rows})
    print(f"chat templates: {count} cases")

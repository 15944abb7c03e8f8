"""What the openai library for Python makes of a running server."""

import hashlib
import json
from typing import Literal

import openai
import pydantic
from checks import ADAPTER, ADMIN_KEY, API_KEY, BASE, CLASSIFIER, EMBEDDER, GUARDED, NEWS, OTHER, READER, URL
from checks import another_server, eventually, gauge, near, nothing_runs, publish, raises, run

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="any", max_retries=0)
PROMPT = {"prompt": "one two", "max_tokens": 5, "temperature": 0}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "temperature": 0}


def guarded(key):
    return openai.OpenAI(base_url=f"{GUARDED}/v1", api_key=key, max_retries=0)


def text(pieces):
    return "".join(piece.choices[0].text for piece in pieces if piece.choices)


def models():
    cards = {card.id: card for card in client.models.list().data}
    assert cards[BASE].parent is None and cards[ADAPTER].parent == BASE
    assert client.models.retrieve(ADAPTER) == cards[ADAPTER]
    raises(openai.NotFoundError, lambda: client.models.retrieve("nope"), "nope")
    publish("passing", ADAPTER, alpha=8)
    assert client.models.retrieve("passing").parent == BASE
    assert client.models.delete("passing").deleted
    raises(openai.NotFoundError, lambda: client.models.retrieve("passing"))


def completions():
    asked = {"model": ADAPTER, **PROMPT}
    whole = client.completions.create(**asked, logprobs=2)
    [choice] = whole.choices
    assert whole.model == ADAPTER and choice.finish_reason in ("length", "stop")
    assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs) == whole.usage.completion_tokens
    assert all(len(top) in (2, 3) for top in choice.logprobs.top_logprobs)
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    pieces = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert text(pieces) == choice.text
    assert pieces[-1].choices == [] and pieces[-1].usage == client.completions.create(**asked).usage
    several = client.completions.create(**{**asked, "prompt": ["one two", "three"], "n": 2})
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == several.choices[1].text == choice.text
    seeded = {**asked, "temperature": 1, "seed": 7}
    assert client.completions.create(**seeded).choices[0].text == client.completions.create(**seeded).choices[0].text


def judged():
    """Prompts are judged as answers are, and the best of several answers is one of them."""
    asked = {"model": ADAPTER, "prompt": "one two", "temperature": 0}
    [echoed] = client.completions.create(**asked, max_tokens=2, echo=True, logprobs=1).choices
    assert echoed.text.startswith("one two") and echoed.logprobs.token_logprobs[0] is None
    assert all(logprob <= 0 for logprob in echoed.logprobs.token_logprobs[1:])
    [scored] = client.completions.create(**asked, max_tokens=0, echo=True, logprobs=1).choices
    prompt = len(scored.logprobs.tokens)
    assert scored.text == "one two" and prompt == len(echoed.logprobs.tokens) - 2
    [choice] = client.completions.create(**asked, max_tokens=1, extra_body={"prompt_logprobs": 1}).choices
    assert len(choice.prompt_logprobs) == prompt and choice.prompt_logprobs[0] is None
    drawn = {**asked, "max_tokens": 4, "temperature": 1, "seed": 1}
    best = client.completions.create(**drawn, best_of=3)
    several = client.completions.create(**drawn, n=3)
    assert best.choices[0].text in [choice.text for choice in several.choices]
    assert best.system_fingerprint and best.system_fingerprint == several.system_fingerprint


def chat():
    asked = {"model": ADAPTER, **CHAT}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    [choice] = whole.choices
    assert choice.message.role == "assistant"
    assert len(choice.logprobs.content) == whole.usage.completion_tokens
    assert all(len(token.top_logprobs) == 2 and token.bytes for token in choice.logprobs.content)
    pieces = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == choice.message.content
    assert pieces[-2].choices[0].finish_reason == choice.finish_reason
    assert not pieces[-1].choices and pieces[-1].usage.total_tokens == whole.usage.total_tokens
    with client.chat.completions.stream(**asked) as stream:
        for _event in stream:
            pass
        assert stream.current_completion_snapshot.choices[0].message.content == choice.message.content


def adapters_by_every_name():
    """The same adapter by each way to name it, and none of them the base."""
    base = client.completions.create(model=BASE, **PROMPT).choices[0].text
    adapted = client.completions.create(model=ADAPTER, **PROMPT).choices[0].text
    assert adapted != base
    served = client.completions.with_raw_response.create(model=ADAPTER, **PROMPT)
    version = served.headers["x-lorad-adapter"]
    assert version.startswith(f"{ADAPTER}@")
    numbers = client.get("../lora-adapters", cast_to=object)
    [number] = [adapter["id"] for adapter in numbers if adapter["path"].startswith(ADAPTER)]
    for extra in (
        {"adapters": [ADAPTER]},
        {"adapters": [version]},
        {"adapters": [{"name": ADAPTER, "weight": 1.0}, {"name": OTHER, "weight": 0}]},
        {"lora": [{"id": number, "scale": 1.0}]},
        {"lora": [{"name": ADAPTER, "scale": 1.0}]},
    ):
        answer = client.completions.create(model=BASE, **PROMPT, extra_body=extra)
        assert answer.choices[0].text == adapted and answer.model == BASE, extra
    assert client.completions.create(model=version, **PROMPT).choices[0].text == adapted
    half = client.completions.create(model=BASE, **PROMPT, logprobs=1, extra_body={"adapters": [{"name": ADAPTER, "weight": 0.5}]})
    whole = client.completions.create(model=ADAPTER, **PROMPT, logprobs=1)
    assert half.choices[0].logprobs.token_logprobs != whole.choices[0].logprobs.token_logprobs


def errors():
    def ask(**fields):
        return lambda: client.completions.create(**{"model": BASE, "prompt": "a", **fields})

    assert raises(openai.NotFoundError, ask(model="nope"), "nope").param == "model"
    raises(openai.BadRequestError, ask(max_tokens=10**6), "maximum context length")
    assert raises(openai.BadRequestError, ask(temperature=-1), "temperature").param == "temperature"
    assert raises(openai.BadRequestError, ask(prompt={"a": 1})).param.startswith("prompt")
    refused = raises(openai.InternalServerError, ask(suffix="end"), "suffix")
    assert refused.status_code == 501 and refused.param == "suffix"
    # A little over the limit: of a body that is not read to its end, no more than this is lost.
    large = raises(openai.APIStatusError, ask(prompt="a" * (8 << 20)))
    assert large.status_code == 413
    embeddings = raises(openai.BadRequestError, lambda: client.embeddings.create(model=BASE, input="a"))
    assert embeddings.body["reason"] == "model_does_not_embed"


def keys():
    asked = {"model": ADAPTER, **PROMPT}
    assert guarded(API_KEY).completions.create(**asked).usage.completion_tokens
    wrong = raises(openai.AuthenticationError, lambda: guarded("wrong").completions.create(**asked))
    assert wrong.type == "invalid_request_error" and "wrong" not in wrong.message, wrong
    raises(openai.AuthenticationError, lambda: guarded("wrong").models.list())
    terms = {"terms": {"keys": [hashlib.sha256(b"a-tenant").hexdigest()]}}

    def make_private(key):
        return guarded(key).patch(f"../admin/adapters/{OTHER}", body=terms, cast_to=object)

    raises(openai.AuthenticationError, lambda: make_private(API_KEY))
    make_private(ADMIN_KEY)
    # A private adapter does not exist for others, and is all that there is for its own key.
    private = {**asked, "model": OTHER}
    raises(openai.NotFoundError, lambda: guarded(API_KEY).completions.create(**private))
    assert OTHER not in [card.id for card in guarded(API_KEY).models.list().data]
    assert guarded("a-tenant").completions.create(**private).model == OTHER
    raises(openai.PermissionDeniedError, lambda: guarded("a-tenant").completions.create(model=BASE, **PROMPT))


def overload():
    """The guarded server takes one request at a time."""
    asked = {"model": BASE, "prompt": "one two", "max_tokens": 1000, "stream": True, "extra_body": {"ignore_eos": True}}
    with guarded(API_KEY).completions.create(**asked) as running:
        next(iter(running))
        busy = raises(openai.RateLimitError, lambda: guarded(API_KEY).completions.create(model=BASE, **PROMPT))
        assert int(busy.response.headers["retry-after"]) >= 1
    patient = guarded(API_KEY).with_options(max_retries=5)
    assert patient.completions.create(model=BASE, **PROMPT).usage.completion_tokens


def cancelled():
    """A client that goes away leaves nothing behind."""
    eventually(nothing_runs)
    asked = {"model": ADAPTER, "prompt": "one two", "max_tokens": 1000, "n": 8, "stream": True}
    generated = gauge("vllm:generation_tokens_total")
    with client.completions.create(**asked, extra_body={"ignore_eos": True}) as stream:
        next(iter(stream))

        def all_run():
            return gauge("vllm:num_requests_running") == 8

        eventually(all_run)
    eventually(nothing_runs)
    assert gauge("vllm:generation_tokens_total") - generated < 8 * 1000
    assert gauge("vllm:kv_cache_usage_perc") == 0


def failing_in_the_middle():
    """An adapter that is replaced under a running stream, by an operator who does not wait."""
    publish("fleeting", ADAPTER, alpha=8)
    asked = {"model": "fleeting", "max_tokens": 1000, "stream": True, "extra_body": {"ignore_eos": True}}

    def read(stream):
        events = iter(stream)
        next(events)
        publish("fleeting", ADAPTER, alpha=4, policy="cancel")
        return list(events)

    error = raises(openai.APIError, lambda: read(client.completions.create(**asked, prompt="one two")))
    assert error.code == "adapter_replaced" or error.type, error
    publish("fleeting", ADAPTER, alpha=8)
    raises(openai.APIError, lambda: read(client.chat.completions.create(**asked, messages=CHAT["messages"])))
    eventually(nothing_runs)


def drained():
    """A server that is told to end lets a stream finish, sends others away, and ends well."""
    with another_server() as (url, process):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
        asked = {"model": BASE, "prompt": "one two", "max_tokens": 200, "n": 4, "stream": True}
        with client.completions.create(**asked, extra_body={"ignore_eos": True}) as stream:
            events = iter(stream)
            next(events)
            process.terminate()
            eventually(lambda: refuses(client))
            finished = [piece.choices[0].finish_reason for piece in events if piece.choices[0].finish_reason]
        assert finished == ["length"] * 4
        assert process.wait(timeout=10) == 0


def refuses(client):
    """Whether new requests get 503, and are told when to come again."""
    try:
        client.completions.create(model=BASE, **PROMPT)
    except openai.InternalServerError as error:
        assert error.status_code == 503 and int(error.response.headers["retry-after"]) >= 1
        return True
    return False


class Sighting(pydantic.BaseModel):
    animal: Literal["cat", "dog"]
    legs: Literal[3, 4]
    tame: bool


def structured():
    asked = {"model": ADAPTER, "messages": CHAT["messages"], "max_tokens": 200, "temperature": 1, "seed": 1}
    parsed = client.chat.completions.parse(**asked, response_format=Sighting)
    assert isinstance(parsed.choices[0].message.parsed, Sighting)
    with client.chat.completions.stream(**asked, response_format=Sighting) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == parsed.choices[0].message.parsed
    # vLLM's own field, in completions too.
    chosen = client.completions.create(
        model=BASE, prompt="a", max_tokens=20, extra_body={"structured_outputs": {"choice": ["yes", "no"]}}
    )
    assert chosen.choices[0].text in ("yes", "no")
    number = client.completions.create(
        model=ADAPTER, prompt="a", max_tokens=20, extra_body={"structured_outputs": {"regex": "[0-9]{3}"}}
    )
    assert len(number.choices[0].text) == 3 and number.choices[0].text.isdigit()
    broken = {"structured_outputs": {"regex": "["}}
    refused = raises(openai.BadRequestError, lambda: client.completions.create(model=BASE, prompt="a", extra_body=broken))
    assert refused.param.startswith("structured_outputs")
    raises(openai.BadRequestError, lambda: client.chat.completions.create(**asked, response_format={"type": "json_schema"}))


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"place": {"enum": ["Ulm", "Oslo"]}},
                "required": ["place"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("weather", "time")
]


def tools():
    asked = {"model": ADAPTER, "messages": CHAT["messages"], "tools": TOOLS, "max_tokens": 300, "temperature": 1, "seed": 3}
    named = {"type": "function", "function": {"name": "time"}}
    for choice, names in (("required", ("weather", "time")), (named, ("time",))):
        whole = client.chat.completions.create(**asked, tool_choice=choice)
        calls = whole.choices[0].message.tool_calls
        assert calls and all(call.function.name in names and call.id for call in calls)
        assert all(json.loads(call.function.arguments)["place"] in ("Ulm", "Oslo") for call in calls)
        # The SDK puts the pieces of a stream together by their index.
        with client.chat.completions.stream(**asked, tool_choice=choice) as stream:
            streamed = stream.get_final_completion().choices[0]
        together = [(call.function.name, call.function.arguments) for call in streamed.message.tool_calls]
        assert together == [(call.function.name, call.function.arguments) for call in calls]
        assert streamed.finish_reason == whole.choices[0].finish_reason
    answered = [
        *CHAT["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump() for call in calls]},
        *({"role": "tool", "tool_call_id": call.id, "content": "noon"} for call in calls),
    ]
    assert client.chat.completions.create(**{**asked, "messages": answered}, tool_choice="none").choices[0].message.content
    raises(openai.BadRequestError, lambda: client.chat.completions.create(**{**asked, "tools": []}, tool_choice="required"))
    unknown = {"type": "function", "function": {"name": "nobody"}}
    refused = raises(openai.BadRequestError, lambda: client.chat.completions.create(**asked, tool_choice=unknown))
    assert refused.param == "tool_choice.function.name"


def embeddings():
    reader = openai.OpenAI(base_url=f"{EMBEDDER}/v1", api_key="any", max_retries=0)
    # As base64, which the library asks for and reads unless it is told otherwise.
    base = reader.embeddings.create(model="bert", input=NEWS)
    assert [item.index for item in base.data] == [0, 1] and base.usage.total_tokens == base.usage.prompt_tokens > 6
    numbers = reader.embeddings.create(model="bert", input=NEWS[1], encoding_format="float").data[0].embedding
    assert near(numbers, base.data[1].embedding) and near([sum(x * x for x in numbers)], [1.0])
    adapted = reader.embeddings.create(model=READER, input=NEWS)
    assert adapted.model == READER and not near(adapted.data[0].embedding, base.data[0].embedding)
    refused = raises(openai.BadRequestError, lambda: reader.embeddings.create(model="bert", input=[NEWS[0], ""]))
    assert refused.param == "input[1]"
    raises(openai.NotFoundError, lambda: reader.embeddings.create(model="nope", input="a"), "nope")


def reads_only():
    reader = openai.OpenAI(base_url=f"{CLASSIFIER}/v1", api_key="any", max_retries=0)
    refused = raises(openai.BadRequestError, lambda: reader.completions.create(model="bert", **PROMPT))
    assert refused.param == "model" and refused.body["reason"] == "model_does_not_generate"


run(
    models,
    completions,
    judged,
    chat,
    adapters_by_every_name,
    errors,
    keys,
    overload,
    cancelled,
    failing_in_the_middle,
    drained,
    structured,
    tools,
    embeddings,
    reads_only,
)

"""What the openai and huggingface_hub libraries make of a running server.

usage: openai_and_huggingface.py URL BASE ADAPTER
"""

import sys

import openai
from huggingface_hub import InferenceClient
from huggingface_hub.errors import ValidationError

url, base, adapter = sys.argv[1:]


def raises(kind, call, *mentions):
    try:
        call()
    except kind as error:
        assert all(word in str(error) for word in mentions), error
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def openai_client():
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
    cards = {card.id: card for card in client.models.list().data}
    assert cards[base].parent is None and cards[adapter].parent == base
    assert client.models.retrieve(adapter) == cards[adapter]

    asked = {"model": adapter, "prompt": "one two", "max_tokens": 5, "temperature": 0}
    whole = client.completions.create(**asked, logprobs=2)
    choice = whole.choices[0]
    assert whole.model == adapter and choice.finish_reason in ("length", "stop")
    assert len(choice.logprobs.tokens) == whole.usage.completion_tokens
    pieces = list(client.completions.create(**asked, stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == choice.text

    mix = {"adapters": [{"name": adapter, "weight": 1.0}]}
    mixed = client.completions.create(**{**asked, "model": base}, extra_body=mix)
    assert mixed.choices[0].text == choice.text and mixed.model == base

    asked = {"model": adapter, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "temperature": 0}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens
    pieces = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert pieces[0].choices[0].delta.role == "assistant"
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content
    assert not pieces[-1].choices and pieces[-1].usage.total_tokens == whole.usage.total_tokens

    def ask(**fields):
        return lambda: client.completions.create(**{"model": base, "prompt": "a", **fields})

    error = raises(openai.NotFoundError, ask(model="nope"), "nope")
    assert error.param == "model"
    raises(openai.BadRequestError, ask(max_tokens=10**6), "maximum context length")
    raises(openai.BadRequestError, ask(temperature=-1), "temperature")


def huggingface_hub_client():
    client = InferenceClient(base_url=url)
    asked = {"adapter_id": adapter, "max_new_tokens": 4, "details": True}
    whole = client.text_generation("one two", **asked)
    events = list(client.text_generation("one two", **asked, stream=True))
    assert len(events) == whole.details.generated_tokens
    assert events[-1].generated_text == whole.generated_text
    chat = client.chat_completion([{"role": "user", "content": "hi"}], model=adapter, max_tokens=3)
    assert chat.model == adapter
    raises(ValidationError, lambda: client.text_generation("one", max_new_tokens=10**6), "maximum context length")


for check in (openai_client, huggingface_hub_client):
    check()
    print(f"{check.__name__}: ok")

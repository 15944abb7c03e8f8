"""What the lorax-client and text-generation libraries make of a running server.

usage: lorax_and_tgi.py URL BASE ADAPTER
"""

import sys

import lorax
import lorax.errors
import text_generation
import text_generation.errors

url, _, adapter = sys.argv[1:]


def raises(kind, call):
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


def same_answer_whole_and_streamed(client, **fields):
    whole = client.generate("one two", max_new_tokens=4, **fields)
    events = list(client.generate_stream("one two", max_new_tokens=4, **fields))
    assert events[-1].generated_text == whole.generated_text
    assert len(events) == whole.details.generated_tokens
    return whole.generated_text


def lorax_client():
    client = lorax.Client(url)
    base = same_answer_whole_and_streamed(client)
    adapted = same_answer_whole_and_streamed(client, adapter_id=adapter, adapter_source="local")
    assert adapted != base

    def merged(strategy):
        return lorax.MergedAdapters(ids=[adapter], weights=[1.0], merge_strategy=strategy, density=0.5)

    assert same_answer_whole_and_streamed(client, merged_adapters=merged("linear")) == adapted
    assert same_answer_whole_and_streamed(client, merged_adapters=merged(None)) == adapted
    ties = {"merged_adapters": merged("ties")}
    raises(lorax.errors.ValidationError, lambda: client.generate("one", **ties))
    raises(lorax.errors.NotFoundError, lambda: client.generate("one", adapter_id="nope"))
    raises(lorax.errors.ValidationError, lambda: client.generate("one", max_new_tokens=10**6))


def text_generation_client():
    client = text_generation.Client(url)
    same_answer_whole_and_streamed(client)
    raises(text_generation.errors.ValidationError, lambda: client.generate("one", max_new_tokens=10**6))


for check in (lorax_client, text_generation_client):
    check()
    print(f"{check.__name__}: ok")

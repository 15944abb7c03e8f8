"""What the lorax-client and text-generation libraries make of a running server."""

import json

import lorax
import lorax.errors
import text_generation
import text_generation.errors
from checks import ADAPTER, CLASSIFIER, EMBEDDER, NEWS, URL, publish, raises, run


def same_answer_whole_and_streamed(client, **fields):
    whole = client.generate("one two", max_new_tokens=4, **fields)
    events = list(client.generate_stream("one two", max_new_tokens=4, **fields))
    assert events[-1].generated_text == whole.generated_text
    assert len(events) == whole.details.generated_tokens
    assert "".join(event.token.text for event in events if not event.token.special) == whole.generated_text
    return whole.generated_text


def lorax_client():
    client = lorax.Client(URL)
    base = same_answer_whole_and_streamed(client)
    adapted = same_answer_whole_and_streamed(client, adapter_id=ADAPTER, adapter_source="local")
    assert adapted != base
    assert same_answer_whole_and_streamed(client, adapter_id="__base_model__") == base


def details():
    client = lorax.Client(URL)
    whole = client.generate("one two", max_new_tokens=4, adapter_id=ADAPTER, decoder_input_details=True)
    found = whole.details
    assert found.finish_reason in ("length", "eos_token") and len(found.tokens) == found.generated_tokens
    assert len(found.prefill) == found.prompt_tokens > 1
    assert all(token.logprob <= 0 for token in found.prefill[1:])
    *_, last = client.generate_stream("one two", max_new_tokens=4, adapter_id=ADAPTER)
    assert last.details.prompt_tokens == found.prompt_tokens


def merged():
    client = lorax.Client(URL)
    adapted = same_answer_whole_and_streamed(client, adapter_id=ADAPTER)

    def adapters(strategy):
        return lorax.MergedAdapters(ids=[ADAPTER], weights=[1.0], merge_strategy=strategy, density=0.5)

    assert same_answer_whole_and_streamed(client, merged_adapters=adapters("linear")) == adapted
    assert same_answer_whole_and_streamed(client, merged_adapters=adapters(None)) == adapted
    raises(lorax.errors.ValidationError, lambda: client.generate("one", merged_adapters=adapters("ties")))


def structured():
    schema = {"type": "object", "properties": {"tame": {"type": "boolean"}}, "required": ["tame"], "additionalProperties": False}
    answer = lorax.Client(URL).generate(
        "one", max_new_tokens=100, adapter_id=ADAPTER, response_format={"type": "json_object", "schema": schema}
    )
    assert json.loads(answer.generated_text)["tame"] in (True, False)


def errors():
    client = lorax.Client(URL)
    raises(lorax.errors.NotFoundError, lambda: client.generate("one", adapter_id="nope"), "nope")
    raises(lorax.errors.ValidationError, lambda: client.generate("one", max_new_tokens=10**6))

    def read():
        publish("brief", ADAPTER, alpha=8)
        events = iter(client.generate_stream("one two", max_new_tokens=1000, adapter_id="brief", ignore_eos_token=True))
        next(events)
        publish("brief", ADAPTER, alpha=4, policy="cancel")
        return list(events)

    raises(Exception, read, "brief")


def text_generation_client():
    client = text_generation.Client(URL)
    same_answer_whole_and_streamed(client)
    best = client.generate("one two", max_new_tokens=4, do_sample=True, best_of=2, decoder_input_details=True)
    assert len(best.details.best_of_sequences) == 1 and len(best.details.prefill) > 1
    raises(text_generation.errors.ValidationError, lambda: client.generate("one", max_new_tokens=10**6))


def reading():
    vector = lorax.Client(EMBEDDER).embed(NEWS[0]).embeddings
    assert len(vector) > 8 and all(isinstance(number, float) for number in vector)
    client = lorax.Client(CLASSIFIER)
    (entity,) = client.classify(NEWS[0]).entities
    assert entity["entity_group"].endswith("newsworthy") and 0 < entity["score"] < 1
    assert (entity["word"], entity["start"], entity["end"]) == (NEWS[0], 0, len(NEWS[0]))
    assert client.classify_batch(NEWS)[0].entities == [entity]
    raises(lorax.errors.ValidationError, lambda: client.classify(""), "empty")


run(reading, lorax_client, details, merged, structured, errors, text_generation_client)

"""What huggingface_hub's InferenceClient makes of a running server."""

from checks import ADAPTER, CLASSIFIER, EMBEDDER, NEWS, READER, URL, near, raises, run
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, ValidationError

client = InferenceClient(base_url=URL)


def text_generation():
    asked = {"adapter_id": ADAPTER, "max_new_tokens": 4, "details": True}
    whole = client.text_generation("one two", **asked)
    events = list(client.text_generation("one two", **asked, stream=True))
    assert len(events) == whole.details.generated_tokens
    assert events[-1].generated_text == whole.generated_text
    assert client.text_generation("one two", max_new_tokens=4) != whole.generated_text
    raises(ValidationError, lambda: client.text_generation("one", max_new_tokens=10**6), "maximum context length")


def chat():
    asked = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "temperature": 0.01, "seed": 1}
    whole = client.chat_completion(**asked, model=ADAPTER)
    assert whole.model == ADAPTER
    pieces = list(client.chat_completion(**asked, model=ADAPTER, stream=True))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content
    # Without a model the library asks for "dummy", which this server's base is called too.
    assert client.chat_completion(**asked).choices[0].message.content != whole.choices[0].message.content
    raises(HfHubHTTPError, lambda: client.chat_completion(**asked, model="nope"))


def reading():
    embedding = InferenceClient(f"{EMBEDDER}/embed").feature_extraction(NEWS[0])
    assert embedding.shape[0] == 1 and near([float((embedding**2).sum())], [1.0])
    adapted = InferenceClient(f"{EMBEDDER}/embed", headers={"x-adapter-id": READER}).feature_extraction(NEWS[0])
    assert not near(embedding[0], adapted[0])
    best = InferenceClient(f"{CLASSIFIER}/predict").text_classification(NEWS[0])
    assert best.label.endswith("newsworthy") and best.score > 1 / 3
    one, other = InferenceClient(f"{EMBEDDER}/similarity").sentence_similarity(NEWS[0], NEWS)
    assert near([one], [1.0]) and other < 0.999


run(text_generation, chat, reading)

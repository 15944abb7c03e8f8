"""What tei-client, made for text-embeddings-inference, makes of a running server; and its adapters, which that has not."""

from checks import CLASSIFIER, EMBEDDER, NEWS, READER, near, run
from tei_client import HttpClient
from tei_client.models import ModelType


def info():
    embedder = HttpClient(EMBEDDER).info()
    assert embedder.server_model_type == ModelType.Embedding and embedder.server_model_metadata.pooling == "mean"
    classifier = HttpClient(CLASSIFIER).info()
    assert classifier.server_model_type == ModelType.Classifier
    assert classifier.server_model_metadata.id2label["1"] == "newsworthy"
    assert classifier.max_client_batch_size and classifier.max_input_length


def embed():
    client = HttpClient(EMBEDDER)
    both = client.embed(NEWS)
    assert len(both) == 2 and near([sum(x * x for x in both[0])], [1.0])
    assert near(client.embed(NEWS[1])[0], both[1]), "alone as in company"
    each = client.embed_all(NEWS)
    assert len(each[0]) > len(each[1]) > 0 and len(each[0][0]) == len(both[0])
    # The client has no field for an adapter; a header goes with every request.
    adapted = HttpClient(EMBEDDER, headers={"x-adapter-id": READER}).embed(NEWS)
    assert not near(adapted[0], both[0])


def classify():
    client = HttpClient(CLASSIFIER)
    one, other = client.classify(NEWS)
    assert len(one.scores) == 3 and near([sum(score.score for score in other.scores)], [1.0])
    assert one.scores[0].score >= one.scores[1].score >= one.scores[2].score
    five = HttpClient(CLASSIFIER, headers={"x-adapter-id": "five-labels"}).classify((NEWS[0], NEWS[1]))
    assert len(five[0].scores) == 5


def tokens():
    client = HttpClient(EMBEDDER)
    tokenized = client.tokenize(NEWS)
    first = tokenized[1].tokens
    assert first[0].special and first[0].start is None and not first[1].special
    assert NEWS[1].startswith(first[1].text) and (first[1].start, first[1].stop) == (0, len(first[1].text))
    texts = client.decode([tokens.get_ids() for tokens in tokenized])
    assert len(texts) == 2 and "rain" in texts[1].lower() and "[" not in texts[1]


run(info, embed, classify, tokens)

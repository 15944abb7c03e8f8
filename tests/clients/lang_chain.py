"""What langchain-openai makes of a running server."""

from typing import Literal

import pydantic
from checks import ADAPTER, EMBEDDER, NEWS, READER, URL, near, run
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

chat = ChatOpenAI(base_url=f"{URL}/v1", api_key="any", model=ADAPTER, temperature=0, max_tokens=5, max_retries=0, stream_usage=True)


class Sighting(pydantic.BaseModel):
    """An animal that was seen."""

    # A model that was never trained would go on inventing fields where the schema lets it.
    model_config = pydantic.ConfigDict(extra="forbid")
    animal: Literal["cat", "dog"]
    tame: bool


def invoke_and_stream():
    whole = chat.invoke("hi")
    assert whole.usage_metadata["output_tokens"] and whole.response_metadata["model_name"] == ADAPTER
    pieces = list(chat.stream("hi"))
    assert "".join(piece.content for piece in pieces) == whole.content
    assert sum(piece.usage_metadata["output_tokens"] for piece in pieces if piece.usage_metadata) == whole.usage_metadata["output_tokens"]
    assert [answer.content for answer in chat.batch(["hi", "hi"])] == [whole.content] * 2


def structured():
    for method in ("json_schema", "function_calling"):
        wanting = chat.model_copy(update={"max_tokens": 300}).with_structured_output(Sighting, method=method)
        assert isinstance(wanting.invoke("hi"), Sighting), method


def embeddings():
    def embedding(model):
        # tiktoken knows OpenAI's models alone.
        return OpenAIEmbeddings(base_url=f"{EMBEDDER}/v1", api_key="any", model=model, check_embedding_ctx_length=False)

    base, adapted = embedding("bert").embed_documents(NEWS), embedding(READER).embed_documents(NEWS)
    assert len(base) == 2 and not near(base[0], adapted[0])
    assert near(embedding(READER).embed_query(NEWS[1]), adapted[1])


run(invoke_and_stream, structured, embeddings)

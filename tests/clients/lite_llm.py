"""What LiteLLM makes of a running server, as OpenAI's and as vLLM's."""

import litellm
from checks import ADAPTER, API_KEY, GUARDED, URL, raises, run

litellm.telemetry = False
litellm.suppress_debug_info = True
MESSAGES = [{"role": "user", "content": "hi"}]


def ask(provider, **fields):
    asked = {"model": f"{provider}/{ADAPTER}", "messages": MESSAGES, "api_base": f"{URL}/v1", "api_key": "any", "max_tokens": 5}
    return litellm.completion(**{**asked, "temperature": 0, "num_retries": 0, **fields})


def both_providers():
    for provider in ("openai", "hosted_vllm"):
        whole = ask(provider)
        assert whole.usage.completion_tokens
        pieces = list(ask(provider, stream=True))
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        assert text == whole.choices[0].message.content


def errors():
    raises(litellm.AuthenticationError, lambda: ask("openai", api_base=f"{GUARDED}/v1", api_key="wrong"))
    assert ask("openai", api_base=f"{GUARDED}/v1", api_key=API_KEY).usage.completion_tokens
    raises(litellm.NotFoundError, lambda: ask("openai", model="openai/nope"), "nope")
    raises(litellm.BadRequestError, lambda: ask("openai", max_tokens=10**6), "maximum context length")


run(both_providers, errors)

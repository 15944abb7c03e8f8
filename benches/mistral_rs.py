"""Output tokens a second of mistral.rs, the prompts' time included, as `lorad bench load` counts them.

    pip install mistralrs
    python benches/mistral_rs.py MODEL ADAPTERS STREAMS NAMES [f32|bf16]

It runs in this process, through its Python classes, without HTTP. ADAPTERS holds PEFT folders named as they are asked for;
NAMES is `base`, or names with commas that the streams take in turn. Prompts are some 128 tokens, random words in the chat
template, answers 64 tokens. After one run to warm up, three runs of as many requests as streams print a line each.
"""

import random
import sys
import time
from pathlib import Path

from mistralrs import ChatCompletionRequest, LoraAdapter, ModelDType, Runner, Which

WORDS = "time year people way day man thing woman life child world school state family student group country problem".split()
WORDS_IN, TOKENS_OUT, RUNS = 98, 64, 3
DTYPES = {"f32": ModelDType.F32, "bf16": ModelDType.BF16}


def load(model, adapters, names, dtype):
    if names == ["base"]:
        which = Which.Plain(model_id=model, dtype=dtype)
    else:
        pairs = [LoraAdapter(alias=name, source=str(Path(adapters) / name)) for name in sorted(set(names))]
        which = Which.Lora(model_id=model, adapters=pairs, dtype=dtype)
    return Runner(which, max_seqs=32, prefix_cache_n=0)


def ask(runner, prompt, name):
    """An answer as it comes; the request is on its way when this returns."""
    request = ChatCompletionRequest(
        messages=prompt,
        model="default",
        max_tokens=TOKENS_OUT,
        temperature=0.0,
        ignore_eos=True,
        stream=True,
        adapter=None if name == "base" else name,
    )
    return iter(runner.send_chat_completion_request(request))


def wave(runner, prompts, names):
    """Tokens of all prompts and of all answers, asked for at once."""
    answers = [ask(runner, prompt, names[index % len(names)]) for index, prompt in enumerate(prompts)]
    asked = answered = 0
    while answers:
        still = []
        for answer in answers:
            chunk = next(answer, None)
            if chunk is None:
                continue
            still.append(answer)
            if chunk.usage is not None:
                asked += chunk.usage.prompt_tokens
                answered += chunk.usage.completion_tokens
        answers = still
    return asked, answered


def main():
    model, adapters, streams, names, *rest = sys.argv[1:]
    streams, names = int(streams), names.split(",")
    runner = load(model, adapters, names, DTYPES[rest[0] if rest else "f32"])
    draw = random.Random(0)
    for run in range(1 + RUNS):
        prompts = [" ".join(draw.choice(WORDS) for _ in range(WORDS_IN)) for _ in range(streams)]
        began = time.perf_counter()
        asked, answered = wave(runner, prompts, names)
        seconds = time.perf_counter() - began
        if run > 0:
            per_stream = f"{asked / streams:.0f} tokens in, {answered / streams:.0f} out"
            print(f"{answered / seconds:.1f} output tokens/s, {per_stream}", flush=True)


if __name__ == "__main__":
    main()

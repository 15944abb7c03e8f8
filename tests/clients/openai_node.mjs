// What the openai library for Node makes of a running server. usage: node openai_node.mjs (settings: see run)
import assert from "node:assert/strict";
import { createRequire } from "node:module";

// The package lies in the environment that `run` made, not beside this file.
const load = createRequire(`${process.env.LORAD_NODE}/package.json`);
const { default: OpenAI } = load("openai");

const [url, guarded] = [process.env.LORAD_URL, process.env.LORAD_GUARDED_URL];
const connect = (url, apiKey) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const client = connect(url, "any");
const prompt = { model: "layers", prompt: "one two", max_tokens: 5, temperature: 0 };
const chat = { model: "layers", messages: [{ role: "user", content: "hi" }], max_tokens: 5, temperature: 0 };

const checks = {
  async models() {
    const cards = [];
    for await (const card of await client.models.list()) cards.push(card);
    assert(cards.some((card) => card.id === "layers" && card.parent === "llama"));
    assert.equal((await client.models.retrieve("layers")).id, "layers");
  },

  async completions() {
    const whole = await client.completions.create(prompt);
    let text = "";
    for await (const piece of await client.completions.create({ ...prompt, stream: true })) text += piece.choices[0].text;
    assert.equal(text, whole.choices[0].text);
    assert.equal(whole.model, "layers");
  },

  async chat() {
    const whole = await client.chat.completions.create(chat);
    const pieces = [];
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const piece of await client.chat.completions.create({ ...chat, ...options })) pieces.push(piece);
    const text = pieces.map((piece) => piece.choices[0]?.delta.content ?? "").join("");
    assert.equal(text, whole.choices[0].message.content);
    assert.deepEqual(pieces.at(-1).choices, []);
    assert.equal(pieces.at(-1).usage.total_tokens, whole.usage.total_tokens);
  },

  async errors() {
    await assert.rejects(client.completions.create({ ...prompt, model: "nope" }), (error) =>
      error instanceof OpenAI.NotFoundError && error.param === "model");
    await assert.rejects(client.completions.create({ ...prompt, temperature: -1 }), OpenAI.BadRequestError);
    await assert.rejects(connect(guarded, "wrong").completions.create(prompt), OpenAI.AuthenticationError);
    await assert.rejects(client.completions.create({ ...prompt, suffix: "end" }), (error) => error.status === 501);
  },

  async cancelled() {
    const stream = await client.completions.create({ ...prompt, max_tokens: 1000, n: 8, stream: true, ignore_eos: true });
    for await (const _ of stream) break; // leaving the loop aborts the request
    for (let turn = 0; ; turn += 1) {
      const metrics = await (await fetch(`${url}/metrics`)).text();
      if (/^vllm:num_requests_running\{[^}]*\} 0$/m.test(metrics)) return;
      assert(turn < 100, "it still runs");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  },

  async structured() {
    const schema = {
      type: "object",
      properties: { animal: { enum: ["cat", "dog"] }, tame: { type: "boolean" } },
      required: ["animal", "tame"],
      additionalProperties: false,
    };
    const format = { type: "json_schema", json_schema: { name: "sighting", schema, strict: true } };
    const answer = await client.chat.completions.parse({ ...chat, max_tokens: 200, response_format: format });
    assert(["cat", "dog"].includes(answer.choices[0].message.parsed.animal));
  },

  async tools() {
    const parameters = { type: "object", properties: { place: { enum: ["Ulm", "Oslo"] } }, required: ["place"] };
    const tools = [{ type: "function", function: { name: "weather", parameters } }];
    const asked = { ...chat, max_tokens: 300, tools, tool_choice: "required" };
    const final = await client.chat.completions.stream(asked).finalChatCompletion();
    const call = final.choices[0].message.tool_calls[0];
    assert.equal(call.function.name, "weather");
    assert(["Ulm", "Oslo"].includes(JSON.parse(call.function.arguments).place));
  },

  async embeddings() {
    const reader = connect(process.env.LORAD_EMBEDDER_URL, "any");
    const input = ["The old bridge was closed.", "Rain."];
    const base = await reader.embeddings.create({ model: "bert", input });
    assert.equal(base.data.length, 2);
    const length = base.data[0].embedding.reduce((sum, number) => sum + number * number, 0);
    assert(Math.abs(length - 1) < 1e-5);
    const float = await reader.embeddings.create({ model: "bert", input: input[1], encoding_format: "float" });
    float.data[0].embedding.forEach((number, at) => assert(Math.abs(number - base.data[1].embedding[at]) < 1e-5));
    const adapted = await reader.embeddings.create({ model: "query-value", input });
    assert.notDeepEqual(adapted.data[0].embedding, base.data[0].embedding);
  },
};

for (const [name, check] of Object.entries(checks)) {
  const began = performance.now();
  let outcome = "ok";
  try {
    await check();
  } catch (error) {
    console.error(error);
    outcome = "FAILED";
    process.exitCode = 1;
  }
  console.log(`  ${name}: ${outcome} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
}

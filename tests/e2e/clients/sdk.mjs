// One call of an SDK, with the placeholder as its key; prints as python_client.py does.
//
//     node sdk.mjs openai|anthropic|stripe|octokit BASE_URL PLACEHOLDER     (NODE_E2E_MODULES)
//
// stripe-node brings an HTTP agent of its own, past which no proxy variable leads; its other client
// is made of fetch.
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_E2E_MODULES + "/");
const [name, base, key] = process.argv.slice(2);

const uses = {
  async openai() {
    const { OpenAI } = require("openai");
    const client = new OpenAI({ baseURL: `${base}/header`, apiKey: key, maxRetries: 0 });
    const { response } = await client.models.list().withResponse();
    return ["openai", { header: [response.status, JSON.stringify(await client.models.list())] }];
  },
  async anthropic() {
    const { Anthropic } = require("@anthropic-ai/sdk");
    const client = new Anthropic({ baseURL: `${base}/header`, apiKey: key, maxRetries: 0 });
    const answer = await client.messages.create({
      model: "m",
      max_tokens: 1,
      messages: [{ role: "user", content: "hello" }],
    });
    return ["@anthropic-ai/sdk", { header: [200, JSON.stringify(answer)] }];
  },
  async stripe() {
    const Stripe = require("stripe");
    const { hostname, pathname, protocol } = new URL(base);
    const stripe = new Stripe(key, {
      host: hostname,
      protocol: protocol.slice(0, -1),
      httpClient: Stripe.createFetchHttpClient(),
      maxNetworkRetries: 0,
    });
    const answer = await stripe.rawRequest("GET", `${pathname}/header`);
    return ["stripe", { header: [200, JSON.stringify(answer)] }];
  },
  async octokit() {
    const { request } = await import(require.resolve("@octokit/request"));
    const answer = await request("GET /header/user", {
      baseUrl: base,
      headers: { authorization: `Bearer ${key}` },
    });
    return ["@octokit/request", { header: [answer.status, JSON.stringify(answer.data)] }];
  },
};
const [module, results] = await uses[name]();
const { version } = require(`${process.env.NODE_E2E_MODULES}/node_modules/${module}/package.json`);
console.log(JSON.stringify({ version, results }));
process.exit(0);

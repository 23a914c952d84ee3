// As python_client.py, with undici's fetch and a proxy agent: node 20 knows no proxy variables.
//
//     node client.mjs BASE_URL PLACEHOLDER      (undici is found through NODE_E2E_MODULES)
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_E2E_MODULES + "/");
const { FormData, ProxyAgent, fetch, setGlobalDispatcher } = require("undici");

const [base, key] = process.argv.slice(2);
const proxy = new URL(process.env.HTTPS_PROXY);
const credential = Buffer.from(`${proxy.username}:${proxy.password}`).toString("base64");
setGlobalDispatcher(new ProxyAgent({ uri: proxy.origin, token: `Basic ${credential}` }));

const form = new FormData();
form.set("key", key);
const basic = Buffer.from(`user:${key}`).toString("base64");
const requests = {
  header: [`${base}/header`, { headers: { Authorization: `Bearer ${key}` } }],
  basic: [`${base}/basic`, { headers: { Authorization: `Basic ${basic}` } }],
  query: [`${base}/query?b=1+2&key=${key}`], // the URL standard leaves braces in a query alone
  path: [`${base}/path/${key}/x`],
  json: [
    `${base}/json`,
    {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ key }),
    },
  ],
  form: [`${base}/form`, { method: "POST", body: new URLSearchParams({ b: "ü", key }) }],
  multipart: [`${base}/multipart`, { method: "POST", body: form }],
};
const results = {};
for (const [place, [url, options]] of Object.entries(requests)) {
  const answer = await fetch(url, options);
  results[place] = [answer.status, await answer.text()];
}
console.log(JSON.stringify(results));
process.exit(0); // keep-alive connections would hold it for a while

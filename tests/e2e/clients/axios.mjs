// As python_client.py, with axios, which reads the proxy variables itself.
//
//     node axios.mjs BASE_URL PLACEHOLDER      (axios is found through NODE_E2E_MODULES)
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_E2E_MODULES + "/");
const axios = require("axios");

const [base, key] = process.argv.slice(2);
const plain = { responseType: "text", transformResponse: (body) => body };
const form = new FormData();
form.set("key", key);
const post = (place, body, options) => axios.post(`${base}/${place}`, body, { ...plain, ...options });
const get = (place, options) => axios.get(`${base}/${place}`, { ...plain, ...options });
const pending = {
  header: () => get("header", { headers: { Authorization: `Bearer ${key}` } }),
  basic: () => get("basic", { auth: { username: "user", password: key } }),
  query: () => get("query", { params: { b: "1 2", key } }),
  path: () => get(`path/${key}/x`),
  json: () => post("json", { key }),
  form: () => post("form", new URLSearchParams({ b: "ü", key })),
  multipart: () => post("multipart", form),
};
const results = {};
for (const [place, request] of Object.entries(pending)) {
  const answer = await request();
  results[place] = [answer.status, answer.data];
}
const version = `${axios.VERSION}, node ${process.versions.node}`;
console.log(JSON.stringify({ version, results }));
process.exit(0);

// What the JavaScript clients that have a `fetch` send: place to the arguments of fetch.
import { Buffer } from "node:buffer";

export function requests(base, key, FormData) {
  const form = new FormData();
  form.set("key", key);
  const basic = Buffer.from(`user:${key}`).toString("base64");
  return {
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
}

export async function send(fetch, requests, version) {
  const results = {};
  for (const [place, [url, options]] of Object.entries(requests)) {
    const answer = await fetch(url, options);
    results[place] = [answer.status, await answer.text()];
  }
  console.log(JSON.stringify({ version, results }));
}

// As python_client.py, with the fetch that the runtime has: node 24 and later, deno, bun. Proxy and
// CA come from the environment.
//
//     node|deno|bun fetch.mjs BASE_URL PLACEHOLDER
import process from "node:process";
import { requests, send } from "./requests.mjs";

const [base, key] = process.argv.slice(2);
const { bun, deno, node } = process.versions;
await send(fetch, requests(base, key, FormData), bun ?? deno ?? node);
process.exit(0);

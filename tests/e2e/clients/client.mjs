// As python_client.py, with undici's fetch and a proxy agent: node 20 knows no proxy variables.
//
//     node client.mjs BASE_URL PLACEHOLDER      (undici is found through NODE_E2E_MODULES)
import { createRequire } from "node:module";
import { requests, send } from "./requests.mjs";

const require = createRequire(process.env.NODE_E2E_MODULES + "/");
const { FormData, ProxyAgent, fetch, setGlobalDispatcher } = require("undici");
const { version } = require("undici/package.json");

const [base, key] = process.argv.slice(2);
const proxy = new URL(process.env.HTTPS_PROXY);
const credential = Buffer.from(`${proxy.username}:${proxy.password}`).toString("base64");
setGlobalDispatcher(new ProxyAgent({ uri: proxy.origin, token: `Basic ${credential}` }));

await send(fetch, requests(base, key, FormData), `${version}, node ${process.versions.node}`);
process.exit(0); // keep-alive connections would hold it for a while

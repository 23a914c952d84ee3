// An HTTP client that is told what its server will say, and prints what it made of it.
//
// A line of input is a list of {method, bytes, close}: for each a request is sent, over a
// connection that is kept as long as it lasts, and answered with just those bytes.
'use strict';

const http = require('http');
const net = require('net');
const readline = require('readline');

const path = process.argv[2];
let script = [];

net.createServer((socket) => {
  socket.on('data', (data) => {
    if (!data.includes('\r\n\r\n')) throw new Error('a request in pieces');
    const play = script.shift();
    socket.write(Buffer.from(play.bytes, 'latin1'));
    if (play.close) socket.end();
  });
  socket.on('error', () => {});
}).listen(path, () => console.log('listening'));

function ask(agent, method) {
  return new Promise((resolve) => {
    const options = { socketPath: path, method, path: '/', agent, maxHeaderSize: 1 << 20 };
    const request = http.request(options, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', () => {});
      response.on('close', () => resolve({
        status: response.statusCode,
        reason: response.statusMessage,
        fields: response.rawHeaders,
        trailers: response.rawTrailers,
        body: Buffer.concat(chunks).toString('latin1'),
        complete: response.complete,
      }));
    });
    request.on('error', (error) => resolve({ error: error.code, complete: false }));
    request.end();
  });
}

async function converse(plays) {
  script = plays.slice();
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const answers = [];
  for (const play of plays) answers.push(await ask(agent, play.method));
  agent.destroy();
  return answers;
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await converse(JSON.parse(line))));
  }
  process.exit(0);
})();

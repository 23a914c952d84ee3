// An HTTP server that prints, for each connection when it is closed, what it parsed on it.
'use strict';

const http = require('http');

const options = { maxHeaderSize: 1 << 20, keepAliveTimeout: 60000 };
const server = http.createServer(options, (request, response) => {
  const seen = request.socket.seen;
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    seen.requests.push({
      method: request.method,
      url: request.url,
      fields: request.rawHeaders,
      trailers: request.rawTrailers,
      body: Buffer.concat(chunks).toString('latin1'),
    });
    response.writeHead(204);
    response.end();
  });
  request.on('error', (error) => { seen.error = seen.error || error.code; });
});

server.on('connection', (socket) => {
  socket.seen = { requests: [], error: '' };
  socket.on('close', () => console.log(JSON.stringify(socket.seen)));
});
server.on('clientError', (error, socket) => {
  socket.seen.error = error.code;
  socket.destroy();
});
server.listen(process.argv[2], () => console.log('listening'));

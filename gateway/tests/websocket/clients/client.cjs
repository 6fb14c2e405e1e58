// Talks to an echo server at the URL given, and checks what comes back. Ends with 0 where all is well.
"use strict";

const { once } = require("node:events");
const { setTimeout: sleep } = require("node:timers/promises");
const WebSocket = require("ws");

const url = process.argv[2];
const MIB = 1 << 20;

function check(what, good) {
  console.log(`${what}: ${good ? "as it should be" : "WRONG"}`);
  if (!good) process.exit(1);
}

// Messages are kept from the start: they may come before somebody asks for them.
async function open(options) {
  const socket = new WebSocket(url, { handshakeTimeout: 20000, ...options });
  const messages = [];
  let wake = () => {};
  socket.on("message", (data, isBinary) => {
    messages.push(isBinary ? data : data.toString());
    wake();
  });
  socket.next = async () => {
    while (messages.length === 0) await new Promise((resolve) => (wake = resolve));
    return messages.shift();
  };
  await once(socket, "open");
  return socket;
}

const same = (a, b) =>
  typeof a === "string" || typeof b === "string" ? a === b : Buffer.compare(a, b) === 0;

async function echoes(socket) {
  for (const [what, message] of [
    ["text", "h\u00e9llo \u{1f600}"],
    ["no text", ""],
    ["binary", Buffer.from(Array.from({ length: 256 }, (_, n) => n))],
    ["64 KiB of text", "x".repeat(65536)],
    ["1 MiB", Buffer.alloc(MIB, 7)],
  ]) {
    socket.send(message);
    check(what, same(await socket.next(), message));
  }
  socket.send("frag", { fin: false });
  socket.send("ment", { fin: false });
  socket.send("ed", { fin: true });
  check("fragmented text", (await socket.next()) === "fragmented");
  const pong = once(socket, "pong");
  socket.ping("are you there");
  check("ping", (await pong)[0].toString() === "are you there");
  for (let n = 0; n < 1000; n++) socket.send(String(n));
  let inOrder = true;
  for (let n = 0; n < 1000; n++) inOrder &&= (await socket.next()) === String(n);
  check("1000 in order", inOrder);
}

async function main() {
  // Offers compression, as it does by default; the gateway may do without.
  let socket = await open({});
  await echoes(socket);
  // A while in which it answers the gateway's Pings and says nothing else.
  await sleep(300);
  let closed = once(socket, "close");
  socket.close(4001, "enough");
  let [code, reason] = await closed;
  check("close 4001", code === 4001 && reason.toString() === "enough");

  socket = await open({ perMessageDeflate: false });
  closed = once(socket, "close");
  socket.send(Buffer.alloc(MIB + 1, 7));
  [code] = await closed;
  check("closed with 1009", code === 1009);

  socket = await open({ perMessageDeflate: false });
  closed = once(socket, "close");
  socket.close(1000);
  [code] = await closed;
  check("close 1000", code === 1000);
}

setTimeout(() => {
  console.error("it takes too long");
  process.exit(1);
}, 50000).unref();

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

// Starts telegram-test-api on a free loopback port, says where, and ends with its parent (when stdin closes).
import { createServer } from "node:net";
import TelegramServer from "telegram-test-api";

function freePort() {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

const server = new TelegramServer({ host: "127.0.0.1", port: await freePort(), storeTimeout: 3600 });
await server.start();
console.log(server.config.apiURL);
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));

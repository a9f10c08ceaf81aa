// Starts telegram-test-api on a free loopback port, says where, and ends with its parent (when stdin closes).
// Two answers of it no Bot API client can read, so they are put right here: getMe says nothing of is_bot, and
// sendMessage gives its date in milliseconds.
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

const addBotMessage = server.addBotMessage.bind(server);
server.addBotMessage = (...sent) => {
  const message = addBotMessage(...sent);
  return { ...message, date: Math.floor(message.date / 1000) };
};

const answers = server.webServer.response;
const json = answers.json;
answers.json = function answer(body) {
  if (this.req.path.endsWith("/getMe")) body.result.is_bot = true;
  return json.call(this, body);
};

await server.start();
console.log(server.config.apiURL);
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));

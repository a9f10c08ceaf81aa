// Starts aimock on a free loopback port, says where, and ends with its parent (when stdin closes).
// Fixtures come over aimock's own control API; each is picked by the X-AIMock-Context header that ModelEmulator sets.
import { LLMock } from "@copilotkit/aimock";

const REMINDERS = /<system-reminder>[\s\S]*?<\/system-reminder>\s*/g;

function echo(request) {
  const said = request.messages.filter((message) => message.role === "user").at(-1)?.content ?? "";
  return { content: `You said: ${said.replace(REMINDERS, "").trim().slice(0, 500)}` };
}

const mock = new LLMock({ host: "127.0.0.1", port: 0, logLevel: "silent", journalMaxEntries: 1 });
mock.on({ predicate: (request) => request._context === undefined }, echo);
console.log(await mock.start());
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));

// Starts aimock on a free loopback port, says where, and ends with its parent (when stdin closes).
// Fixtures come over aimock's own control API; ModelFront picks one by the X-AIMock-Context header, or asks for an echo.
import { LLMock } from "@copilotkit/aimock";

const ECHO = "echo ";

const mock = new LLMock({ host: "127.0.0.1", port: 0, logLevel: "silent", journalMaxEntries: 1 });
mock.on(
  { predicate: (request) => request._context?.startsWith(ECHO) },
  (request) => ({ content: `You said: ${decodeURIComponent(request._context.slice(ECHO.length))}` }),
);
console.log(await mock.start());
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));

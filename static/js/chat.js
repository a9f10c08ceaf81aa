// A conversation as it happens. The socket brings the words of the running turn; everything that stays is fetched from the
// server, so a reload, a second tab or an hour without network end up with the same transcript.
import { addCopyButtons } from "./copy.js";
import { followEnd } from "./follow.js";
import { openComposer, watchStops } from "./composer.js";
import { Socket } from "./socket.js";
import { applyEvent, renewTurn } from "./streaming.js";

const LOOK_AGAIN_MS = 5000;

const chat = document.getElementById("chat");
const messages = document.getElementById("messages");
const turns = document.getElementById("turns");
const announcer = document.getElementById("announcer");
const connection = document.getElementById("connection");
const atRest = connection?.textContent;
const follow = followEnd(document.getElementById("transcript"), document.getElementById("below"));
const live = "socket" in chat.dataset; // not on a page of earlier messages, nor before the first one
let fetching = null;
let again = false;
let connected = false;

const parse = (html) => new DOMParser().parseFromString(html, "text/html");
const lastMessage = () => messages.lastElementChild?.dataset.message ?? "0";
const sequenceOf = (turn) => Number(turn.dataset.sequence);
const executionOf = (turn) => Number(turn.dataset.execution); // a sequence counts within an execution; later ones have higher numbers
const runningTurn = () => turns.querySelector("[data-turn]");

function announce(item) {
  const text = item.querySelector(".said__body, .said__system")?.textContent.trim().split(/(?<=[.!?])\s/)[0] ?? "";
  announcer.textContent = `${item.getAttribute("aria-label")}: ${text}`;
}

function takeMessages(page) {
  for (const item of page.querySelectorAll("#messages > [data-message]")) {
    if (document.getElementById(item.id)) continue;
    messages.append(item);
    htmx.process(item);
    addCopyButtons(item);
    if (!item.matches(".said--person")) announce(item);
  }
}

// Whether what stands here of a turn is further than what the server's page shows of it.
function isFurther(known, fresh) {
  const ahead = executionOf(known) - executionOf(fresh);
  return ahead > 0 || (ahead === 0 && sequenceOf(known) > sequenceOf(fresh));
}

// A turn we already know further than the server's page does stays as it is: nothing jumps, nothing is lost.
function takeTurns(page) {
  const fresh = page.getElementById("turns");
  if (!fresh) return;
  for (const old of turns.querySelectorAll("[data-turn]")) {
    if (!fresh.querySelector(`#${old.id}`)) old.remove();
  }
  for (const turn of [...fresh.children]) {
    const known = document.getElementById(turn.id);
    if (known && isFurther(known, turn)) continue;
    if (known) renewTurn(known, turn);
    else turns.append(turn);
    htmx.process(known ?? turn);
  }
}

function take(html) {
  const page = parse(html);
  follow.during(() => {
    if (page.querySelector("[data-message], [data-turn]")) document.getElementById("first-words")?.remove();
    takeMessages(page);
    takeTurns(page);
  });
  const told = page.getElementById("composer-error");
  if (told) document.getElementById("composer-error")?.replaceWith(told);
}

// One fetch at a time; whatever is asked meanwhile becomes one more.
async function refresh() {
  if (!live) return;
  if (fetching) { again = true; return; }
  fetching = fetch(`${chat.dataset.messages}?after=${lastMessage()}`, { headers: { "HX-Request": "true" } });
  try {
    const answer = await fetching;
    if (answer.redirected) location.reload();
    else if (answer.ok) take(await answer.text());
  } catch {
    // Without network the socket says so; the next look comes by itself.
  } finally {
    fetching = null;
    if (again) { again = false; refresh(); }
  }
}

// Another execution took the turn over, and everything of it is told: what stands here is of the one before, or comes once more.
function beginAnew(turn, execution) {
  Object.assign(turn.dataset, { execution, sequence: 0 });
  turn.querySelector("[data-parts]").replaceChildren();
}

function onMessage(message) {
  const turn = document.getElementById(`turn-${message.turn}`);
  if (message.anew && turn) beginAnew(turn, executionOf(turn));
  if (message.type !== "event" || !turn) return message.type === "sync" ? undefined : refresh();
  if (message.execution < executionOf(turn)) return undefined; // the page has been fetched since the turn was taken over
  if (message.execution > executionOf(turn)) beginAnew(turn, message.execution);
  if (message.seq <= sequenceOf(turn)) return undefined;
  turn.dataset.sequence = message.seq;
  return follow.during(() => applyEvent(turn, message));
}

function onState(state, seconds) {
  connected = state === "live";
  if (connected) refresh();
  if (!connection) return;
  connection.textContent = state === "waiting"
    ? `Connection lost, trying again in ${Math.ceil(seconds)} s. What was sent is kept and answered.`
    : atRest;
}

function address() {
  const turn = runningTurn();
  if (!turn) return `${chat.dataset.socket}?after=0`;
  return `${chat.dataset.socket}?turn=${turn.dataset.turn}&execution=${executionOf(turn)}&after=${sequenceOf(turn)}`;
}

document.addEventListener("click", async (event) => {
  const link = event.target.closest("[data-older]");
  if (!link) return;
  event.preventDefault();
  const answer = await fetch(chat.dataset.messages + link.search, { headers: { "HX-Request": "true" } });
  if (!answer.ok) { location.assign(link.href); return; }
  const page = parse(await answer.text());
  follow.keeping(() => {
    const items = [...page.querySelectorAll("#messages > [data-message]")];
    messages.prepend(...items);
    items.forEach((item) => htmx.process(item));
    addCopyButtons(messages);
    document.getElementById("older").replaceWith(page.getElementById("older"));
  });
});

openComposer({ form: document.getElementById("composer"), conversation: chat.dataset.conversation, take, refresh });
watchStops({ refresh });
if (live) {
  follow.toEnd();
  new Socket({ address, onMessage, onState });
  setInterval(() => { if (!document.hidden && (!connected || runningTurn())) refresh(); }, LOOK_AGAIN_MS);
}

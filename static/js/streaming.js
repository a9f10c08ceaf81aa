// The running turn: words and tool calls as they come. The open block is plain text; Markdown follows from the server when it closes.
const sprite = () => document.querySelector(".icon use").getAttribute("href").replace(/#.*/, "");

function icon(name, extra = "") {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", `icon ${extra}`);
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `${sprite()}#${name}`);
  svg.append(use);
  return svg;
}

function badge(tone, word) {
  const span = document.createElement("span");
  span.className = `badge badge--plain badge--${tone}`;
  span.append(icon(tone, tone === "running" ? "icon--turning" : ""), word);
  return span;
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function addText(parts, text) {
  let open = parts.lastElementChild;
  if (!open?.matches("[data-text]")) {
    open = element("div", "said__stream", "");
    open.dataset.text = "";
    parts.append(open);
  }
  open.append(text);
}

function toolLine(parts, call) {
  return parts.querySelector(`[data-call="${CSS.escape(call)}"]`);
}

// A refusal may be told before the call it refuses: whichever comes first draws the line.
function addTool(parts, { call, tool, target }) {
  const known = toolLine(parts, call);
  if (known) return known;
  const line = element("details", "fold tool", "");
  const summary = document.createElement("summary");
  line.dataset.call = call;
  summary.append(icon("arrow", "icon--small fold__arrow"), badge("running", "Running"));
  summary.append(element("code", "tool__name", tool), element("span", "tool__target", target ?? ""));
  const log = element("pre", "log", "Still running.");
  log.tabIndex = 0;
  line.append(summary, log);
  parts.append(line);
  return line;
}

function endTool(line, status, told) {
  line.querySelector(".badge").replaceWith(status);
  line.querySelector(".log").textContent = told || "Nothing reported.";
}

// What the gate said stays: that the provider then ends the call as failed is only how it takes note.
function denyTool(parts, message) {
  const line = addTool(parts, message);
  line.dataset.denied = "";
  endTool(line, badge("held", "Denied"), message.reason);
}

function finishTool(parts, { call, ok, summary }) {
  const line = toolLine(parts, call);
  if (line && !("denied" in line.dataset)) endTool(line, ok ? badge("ok", "Done") : badge("failed", "Failed"), summary);
}

function label(turn, text) {
  turn.querySelector("[data-label]").textContent = text;
}

const ACTS = {
  text(turn, parts, message) {
    addText(parts, message.text);
    label(turn, "Writing");
  },
  tool_started(turn, parts, message) {
    if (!("denied" in addTool(parts, message).dataset)) label(turn, `Running tool ${message.tool}`);
  },
  tool_denied(turn, parts, message) {
    denyTool(parts, message);
    label(turn, "Thinking");
  },
  tool_finished(turn, parts, message) {
    finishTool(parts, message);
    label(turn, "Thinking");
  },
  state(turn, parts, message) { label(turn, message.label); },
  error(turn, parts, message) { label(turn, message.text); },
};

// A block that reads as before keeps its place, and one that was opened stays open.
function renewParts(parts, fresh) {
  const wanted = [...fresh.children];
  wanted.forEach((part, at) => {
    const old = parts.children[at];
    if (!old) { parts.append(part); return; }
    part.toggleAttribute("open", old.hasAttribute("open"));
    if (!old.isEqualNode(part)) old.replaceWith(part);
  });
  while (parts.children.length > wanted.length) parts.lastElementChild.remove();
}

// What the server shows of a turn goes into the one on the page, piece by piece: who stands on its button, has opened a tool
// call or has marked words keeps that. At the same event of the same execution the parts are the same, however they were drawn.
export function renewTurn(turn, fresh) {
  for (const piece of ["[data-state]", "[data-label]", "[data-clock]"]) {
    const [old, now] = [turn.querySelector(piece), fresh.querySelector(piece)];
    if (!old.isEqualNode(now)) old.replaceWith(now);
  }
  const [stop, mayStop] = [turn.querySelector(".said__stop"), fresh.querySelector(".said__stop")];
  if (!mayStop) stop?.remove();
  else if (!stop) turn.querySelector(".said__head").append(mayStop);
  const { execution, sequence } = fresh.dataset;
  if (turn.dataset.execution === execution && turn.dataset.sequence === sequence && sequence !== "0") return;
  Object.assign(turn.dataset, { execution, sequence });
  renewParts(turn.querySelector("[data-parts]"), fresh.querySelector("[data-parts]"));
}

export function applyEvent(turn, message) {
  ACTS[message.kind]?.(turn, turn.querySelector("[data-parts]"), message);
}

// Live regions. A message is only a hint that something changed; what is shown is always fetched.
import { Socket } from "./socket.js";

const BATCH_MS = 250;
const SETTLED_MS = 500;
const LOOK_AGAIN_MS = 30000; // hints may be lost, so visible regions are fetched now and then even without one
const STALE_MS = 60000;
const SHAPES = { Live: ["ok", "ok"], Connecting: ["unknown", "unknown"], Reconnecting: ["unknown", "running"], Paused: ["held", "held"], Stale: ["waiting", "waiting"] };

const pill = document.getElementById("freshness");
const touched = new Set();
let batch = 0;
let everLive = false;
let freshAt = Date.now();
let state = "connecting";
let retryAt = 0;

function refetch(regions) {
  for (const region of regions) {
    if (region.isConnected && region.checkVisibility()) htmx.trigger(region, "live");
  }
}

const allRegions = () => document.querySelectorAll("[data-live-topic]");

function onMessage({ topic }) {
  touched.add(topic);
  batch ||= setTimeout(() => {
    batch = 0;
    const regions = [...allRegions()].filter((region) => region.dataset.liveTopic.split(" ").some((name) => touched.has(name)));
    touched.clear();
    refetch(regions);
  }, BATCH_MS);
}

function onState(next, seconds) {
  state = next;
  retryAt = next === "waiting" ? Date.now() + seconds * 1000 : 0;
  if (next === "live") {
    // What happened between the page's making and the server's first look was not told to anybody.
    setTimeout(() => refetch(allRegions()), SETTLED_MS);
    everLive = true;
    freshAt = Date.now();
  }
  show();
}

function words() {
  if (state === "live") return ["Live"];
  if (state === "paused") return ["Paused"];
  if (Date.now() - freshAt > STALE_MS) {
    return ["Stale", ` since ${new Date(freshAt).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`];
  }
  if (!everLive && state === "connecting") return ["Connecting"];
  const left = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  return ["Reconnecting", left ? ` (${left} s)` : ""];
}

function show() {
  if (!pill) return;
  const [word, more = ""] = words();
  const [tone, shape] = SHAPES[word];
  const use = pill.querySelector("use");
  pill.hidden = false;
  pill.className = `badge badge--${tone}`;
  pill.querySelector("svg").classList.toggle("icon--turning", word === "Reconnecting");
  use.setAttribute("href", use.getAttribute("href").replace(/#.*/, `#${shape}`));
  pill.querySelector("span").textContent = word + more;
  pill.title = word === "Paused" ? "This page does not change by itself. Click to resume." : "Click to pause.";
}

const socket = new Socket({ address: () => "/ws/console/", onMessage, onState });

pill?.addEventListener("click", () => { socket.paused = !socket.paused; });
setInterval(() => {
  if (state === "live") freshAt = Date.now();
  show();
}, 1000);
setInterval(() => { if (state === "live") refetch(allRegions()); }, LOOK_AGAIN_MS);

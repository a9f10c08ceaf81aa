// A WebSocket that comes back: bounded handshake, growing waits with jitter, at rest while nobody looks.
const HANDSHAKE_MS = 5000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 20000;
const SIGNED_OUT = 4401;
const NOT_ALLOWED = 4403;

export class Socket {
  #address;
  #onMessage;
  #onState;
  #socket = null;
  #timer = 0;
  #failures = 0;
  #paused = false;

  // `address()` is asked again at each attempt; `onState(state, seconds)` hears connecting, live, waiting or paused.
  constructor({ address, onMessage, onState }) {
    this.#address = address;
    this.#onMessage = onMessage;
    this.#onState = onState;
    document.addEventListener("visibilitychange", () => this.#decide());
    addEventListener("online", () => this.#soon());
    addEventListener("pagehide", () => this.#drop());
    addEventListener("pageshow", (event) => { if (event.persisted) this.#decide(); });
    this.#decide();
  }

  get paused() { return this.#paused; }
  set paused(value) {
    this.#paused = value;
    this.#decide();
  }

  #decide() {
    if (this.#paused || document.hidden) {
      this.#drop();
      this.#onState("paused");
    } else if (!this.#socket) {
      this.#connect();
    }
  }

  #soon() {
    if (this.#socket || this.#paused || document.hidden) return;
    this.#connect();
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#onState("connecting");
    const url = new URL(this.#address(), location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url);
    this.#socket = socket;
    const handshake = setTimeout(() => socket.close(), HANDSHAKE_MS);
    socket.onopen = () => {
      clearTimeout(handshake);
      this.#failures = 0;
      this.#onState("live");
    };
    socket.onmessage = (event) => this.#onMessage(JSON.parse(event.data));
    socket.onclose = (event) => {
      clearTimeout(handshake);
      if (this.#socket !== socket) return;
      this.#socket = null;
      if (event.code === SIGNED_OUT) location.reload();
      else if (event.code === NOT_ALLOWED) this.paused = true;
      else this.#wait();
    };
  }

  #wait() {
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#failures++);
    const wait = longest / 2 + Math.random() * longest / 2;
    this.#onState("waiting", wait / 1000);
    this.#timer = setTimeout(() => this.#connect(), wait);
  }

  #drop() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }
}

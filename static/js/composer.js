// The composer never loses text: it is kept in this tab until the server has confirmed it, and a repeated send is recognised by its key.
import { sentenceOf } from "./requests.js";

const touch = matchMedia("(pointer: coarse)");

// Not crypto.randomUUID: that exists only on https and localhost, and the console may be reached by another name.
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

// Beside the composer, or where one stands that a page without a composer has for its Stop buttons.
function tell(sentence) {
  const place = document.getElementById("composer-error");
  place.replaceChildren();
  if (!sentence) return;
  const line = document.createElement("p");
  line.className = "field__error";
  line.textContent = sentence;
  place.append(line);
}

// Who may only follow a conversation may stop it too, so this does not hang on the composer.
export function watchStops({ refresh }) {
  document.addEventListener("htmx:beforeRequest", (event) => { if (event.target.matches(".said__stop")) tell(""); });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (!event.target.matches(".said__stop")) return;
    if (event.detail.successful) refresh();
    else tell(`Not stopped. ${sentenceOf(event.detail.xhr)}`);
  });
}

export function openComposer({ form, conversation, take, refresh }) {
  if (!form) return;
  const text = form.elements.text;
  const draft = `draft:${conversation}`;
  let tried = false;
  const kept = JSON.parse(sessionStorage.getItem(draft) ?? "null");

  if (kept && !text.value) {
    text.value = kept.text;
    form.elements.key.value = kept.key;
  }
  const keep = () => {
    if (text.value) sessionStorage.setItem(draft, JSON.stringify({ text: text.value, key: form.elements.key.value }));
    else sessionStorage.removeItem(draft);
  };

  text.addEventListener("input", () => {
    if (tried) { // other words are another message, even if the first ones did arrive
      form.elements.key.value = newKey();
      tried = false;
    }
    keep();
  });
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || touch.matches) return;
    event.preventDefault();
    if (text.value.trim() && !text.readOnly) form.requestSubmit();
  });

  form.addEventListener("htmx:beforeRequest", () => { text.readOnly = true; tried = true; tell(""); });
  form.addEventListener("htmx:afterRequest", (event) => {
    const { successful, xhr } = event.detail;
    text.readOnly = false;
    if (successful) {
      text.value = "";
      form.elements.key.value = newKey();
      tried = false;
      keep();
      refresh();
    } else if (xhr.responseText.includes('id="composer-error"')) {
      take(xhr.responseText);
    } else {
      tell(`Not sent. ${sentenceOf(xhr)} Your text is kept; sending it again cannot double it.`);
    }
    text.focus();
  });
}

// What htmx sends and what people see when it fails: the CSRF token goes along, and trouble is told in words, once.
const token = document.querySelector('meta[name="csrf-token"]')?.content;
const trouble = document.getElementById("trouble");
let since = "";

document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRFToken"] = token;
});

// A refusal explains itself in the answer's page; anything else is told by its status.
export function sentenceOf(xhr) {
  const page = new DOMParser().parseFromString(xhr.responseText ?? "", "text/html");
  const parts = ["[data-what]", "[data-why]", "[data-next-step]"].map((part) => page.querySelector(part)?.textContent.trim());
  const told = parts.filter(Boolean).join(" ");
  if (told) return told;
  if (xhr.status === 0) return "The server does not answer.";
  return `The server answered with an error (${xhr.status}).`;
}

function show(xhr) {
  since ||= new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  trouble.textContent = `Part of this page could not be refreshed since ${since}. ${sentenceOf(xhr)} What you see is as it was before.`;
  trouble.hidden = false;
}

function clear() {
  since = "";
  trouble.hidden = true;
}

// A form tells its own failures beside itself; only refreshes report here.
const isRefresh = (event) => event.detail.elt.matches("[data-live-topic]");

for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => {
    const { xhr } = event.detail;
    if (xhr.status === 401) location.reload();
    else if (isRefresh(event)) show(xhr);
  });
}
document.addEventListener("htmx:afterOnLoad", (event) => {
  if (isRefresh(event) && event.detail.xhr.status < 400) clear();
});

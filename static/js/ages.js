// Ages and running clocks go on while a page is open. Same words as fleet/console/wording.py.
const secondsSince = (time) => Math.max(0, Math.floor((Date.now() - Date.parse(time.dateTime)) / 1000));

function length(seconds) {
  if (seconds < 60) return `${seconds} s`;
  const [minutes, rest] = [Math.floor(seconds / 60), String(seconds % 60).padStart(2, "0")];
  return minutes < 60 ? `${minutes} m ${rest} s` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} m`;
}

function words(seconds) {
  if (seconds < 5) return "now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

function show(selector, say) {
  for (const time of document.querySelectorAll(selector)) {
    const text = say(secondsSince(time));
    if (time.textContent !== text) time.textContent = text;
  }
}

setInterval(() => {
  show("time[data-age]", words);
  show("time[data-clock]", length);
}, 1000);

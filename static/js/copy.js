// A copy button on every block of code. Added here, because without scripts it could do nothing.
export function addCopyButtons(root) {
  for (const block of root.querySelectorAll(".code:not(:has(.code__copy))")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button button--quiet button--small code__copy";
    button.textContent = "Copy";
    block.append(button);
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest(".code__copy");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.closest(".code").querySelector("pre").textContent.trimEnd());
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy by hand";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});
addCopyButtons(document);

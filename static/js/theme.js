// The theme changes at once; without this module the same form changes it by a reload.
const form = document.querySelector("[data-theme-form]");
const button = form?.querySelector("button");
const after = { "": "light", light: "dark", dark: "" };

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  const theme = button.value;
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  document.cookie = `fleet_theme=${theme}; path=/; max-age=${theme ? 31536000 : 0}; samesite=lax`;
  button.value = after[theme];
  button.title = `Theme: ${theme || "system"}`;
  button.setAttribute("aria-label", button.title);
});

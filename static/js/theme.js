// Light or dark, wide or narrow rail: kept in cookies, so that the server paints the page right at once.
document.documentElement.classList.add("js");

function keepChoice(name, value) {
  document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=lax`;
}

document.addEventListener("click", (event) => {
  const control = event.target.closest("[data-does='switch-theme'], [data-does='fold-rail']");
  if (!control) return;
  const root = document.documentElement;
  if (control.dataset.does === "switch-theme") {
    const isDark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    keepChoice("theme", root.dataset.theme);
  } else {
    root.dataset.rail = root.dataset.rail === "narrow" ? "wide" : "narrow";
    keepChoice("rail", root.dataset.rail);
  }
});

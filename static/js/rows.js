// j and k move the focus through the rows of a list.
document.addEventListener("keydown", (event) => {
  if ((event.key !== "j" && event.key !== "k") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.activeElement.matches("input:not([type='radio']), textarea, select") || document.querySelector("dialog[open]")) return;
  const links = [...document.querySelectorAll("[data-row-link]")];
  const at = links.indexOf(document.activeElement);
  const next = links[event.key === "j" ? at + 1 : Math.max(0, at - 1)];
  if (!next) return;
  event.preventDefault();
  next.focus();
});

// Overlays: [data-opens=id] opens the dialog of that id, [data-closes] closes the one around it; Escape is the browser's.
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) {
    const dialog = document.getElementById(opener.dataset.opens);
    if (!dialog) return;
    event.preventDefault();
    dialog.showModal();
    const row = document.querySelector("[data-mode='correct'] [data-row]:focus-within");
    if (row) document.getElementById(`guide-${row.dataset.row}`)?.scrollIntoView();
    return;
  }
  if (event.target.closest("[data-closes]") || event.target.matches("dialog")) {
    event.target.closest("dialog").close();
  }
});

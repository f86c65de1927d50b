// The card's correction mode: which row is active, what differs from the model's choice.
const card = () => document.querySelector("form.card");

function chosen(row) {
  return row.querySelector("input:checked")?.value || "";
}

function refresh() {
  const form = card();
  if (!form) return;
  let differs = false;
  for (const row of form.querySelectorAll("[data-row]")) {
    const changed = chosen(row) !== row.dataset.judged;
    row.classList.toggle("changed", changed);
    differs ||= changed;
  }
  // Agreeing would drop the changed labels: send them, or leave the correction first.
  form.querySelector(".agree").disabled = differs;
  form.querySelector(".agree").title = differs ? "Labels differ: send the correction, or leave it with Escape" : "";
}

function openCorrection(row) {
  const form = card();
  form.dataset.mode = "correct";
  const active = row || form.querySelector("[data-row]");
  (active.querySelector("input:checked") || active.querySelector("input")).focus({ preventScroll: true });
  refresh();
}

function leaveCorrection() {
  const form = card();
  for (const row of form.querySelectorAll("[data-row]")) {
    const judged = row.querySelector(`input[value="${CSS.escape(row.dataset.judged)}"]`);
    if (judged) judged.checked = true;
  }
  delete form.dataset.mode;
  form.focus({ preventScroll: true });
  refresh();
}

function takeCard() {
  const form = card();
  if (!form) {
    document.getElementById("card")?.focus({ preventScroll: true });
    return;
  }
  if (crypto.randomUUID) form.elements.idempotency_key.value = crypto.randomUUID();
  form.focus({ preventScroll: true });
  refresh();
  if (form.querySelector(".changed")) form.dataset.mode = "correct";
}

document.addEventListener("click", (event) => {
  const control = event.target.closest("[data-does]");
  if (control?.dataset.does === "open-correction") openCorrection();
  if (control?.dataset.does === "pick-row") openCorrection(control.closest("[data-row]"));
});
document.addEventListener("change", (event) => {
  const row = event.target.closest("form.card [data-row]");
  if (row) openCorrection(row);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (card()?.dataset.mode === "correct" && !document.activeElement.matches("textarea")) leaveCorrection();
});
document.addEventListener("DOMContentLoaded", takeCard);
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id === "workbench") takeCard();
});

// Presses whatever control is printed with the key. The bindings are the controls' data-key attributes, which come from
// feedback/keys.py like the printed keys and the overlay; so they cannot disagree.
const TYPED = "textarea, select, input:not([type='radio'], [type='checkbox'], [type='button'], [type='submit'])";
const PRESSED_BY_ITSELF = "button, a[href], summary, input[type='checkbox']";

function isVisible(element) {
  return !element.disabled && element.getClientRects().length > 0;
}

// Digits belong to the active row: the one with the focus, else the first.
function findControl(key) {
  const wanted = `[data-key="${CSS.escape(key)}"]`;
  const rows = [...document.querySelectorAll("[data-row][data-judged]")];
  const row = rows.find((row) => row.contains(document.activeElement)) || rows[0];
  const inRow = row && row.querySelector(wanted + "[type='radio']");
  if (inRow) return inRow;
  return [...document.querySelectorAll(`${wanted}:not([type='radio'])`)].find(isVisible);
}

function press(control) {
  if (control.matches(TYPED)) control.focus();
  else control.click();
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (document.querySelector("dialog[open]")) return;
  const focused = document.activeElement;
  if (event.key === "Escape") {
    if (focused.matches(TYPED)) {
      event.preventDefault();
      focused.blur();
      document.getElementById("card")?.focus();
    }
    return;
  }
  if (focused.matches(TYPED)) return;
  // A focused button is pressed by Enter and space, as everywhere.
  if ((event.key === "Enter" || event.key === " ") && focused.matches(PRESSED_BY_ITSELF)) return;
  // Space on a chip chooses it; whoever corrects does not skip.
  if (event.key === " " && focused.matches("input[type='radio']")) return;
  if (event.repeat) return;
  const control = findControl(event.key);
  if (!control) {
    // Enter on a chip would send the form by its first button.
    if (event.key === "Enter" && focused.matches("input[type='radio']")) event.preventDefault();
    return;
  }
  event.preventDefault();
  press(control);
});

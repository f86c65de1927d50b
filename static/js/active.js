// Time spent on the card: only while the page is visible and somebody moves, types or scrolls at least every 30 s.
const IDLE_MS = 30000;
let activeMs = 0;
let lastSeen = 0;

function note() {
  const now = performance.now();
  if (lastSeen && document.visibilityState === "visible") activeMs += Math.min(now - lastSeen, IDLE_MS);
  lastSeen = now;
}

function restart() {
  activeMs = 0;
  lastSeen = performance.now();
}

for (const kind of ["pointermove", "pointerdown", "keydown", "wheel", "touchmove"]) {
  document.addEventListener(kind, note, { passive: true, capture: true });
}
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") note();
  lastSeen = document.visibilityState === "visible" ? performance.now() : 0;
});
document.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.elt.matches("form.card")) {
    note();
    event.detail.parameters.active_ms = Math.round(activeMs);
  }
});
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id === "workbench") restart();
});
restart();

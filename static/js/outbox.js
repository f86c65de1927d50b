// An answer that finds no network waits here and is sent again, with its own idempotency key: never lost, never doubled.
const PLACE = `outbox-${document.body.dataset.person}`;
const RETRY_MS = 4000;
let isSending = false;

const waiting = () => JSON.parse(localStorage.getItem(PLACE) || "[]");

function keep(answers) {
  if (answers.length) localStorage.setItem(PLACE, JSON.stringify(answers));
  else localStorage.removeItem(PLACE);
}

function show(state, words) {
  const place = document.getElementById("save-state");
  place.dataset.state = state;
  place.querySelector("span").textContent = words;
}

function queue(path, parameters) {
  const values = [...new URLSearchParams(parameters)];
  const key = values.find(([name]) => name === "idempotency_key")?.[1];
  const others = waiting().filter((answer) => answer.key !== key);
  keep([...others, { key, path, values }]);
  show("queued", `queued ${waiting().length}`);
}

async function send(answer) {
  const response = await fetch(answer.path, {
    method: "POST",
    headers: { ...JSON.parse(document.body.getAttribute("hx-headers")), "HX-Request": "true" },
    body: new URLSearchParams(answer.values),
  });
  if (response.status >= 500) throw new Error(`status ${response.status}`);
  keep(waiting().filter((other) => other.key !== answer.key));
  return response;
}

async function flush() {
  if (isSending || !waiting().length) return;
  isSending = true;
  try {
    const responses = [];
    for (const answer of waiting()) responses.push(await send(answer));
    const refused = responses.some((response) => !response.ok);
    show(refused ? "failed" : "saved", refused ? "not saved" : "saved");
    htmx.ajax("GET", location.pathname, { target: "#workbench", select: "#workbench", swap: "outerHTML" });
  } catch {
    show("queued", `queued ${waiting().length}`);
  } finally {
    isSending = false;
  }
}

// After the swap the form is gone from the page, and the event comes from what took its place.
const isAnswer = (event) => (event.detail.requestConfig?.elt || event.detail.elt).matches?.("form.card");

document.addEventListener("htmx:beforeRequest", (event) => {
  if (isAnswer(event)) show("sending", "saving");
});
document.addEventListener("htmx:afterRequest", (event) => {
  if (isAnswer(event) && event.detail.successful) show("saved", "saved");
});
document.addEventListener("htmx:sendError", (event) => {
  if (isAnswer(event)) queue(event.detail.requestConfig.path, event.detail.requestConfig.formData);
});
document.addEventListener("htmx:responseError", (event) => {
  if (isAnswer(event)) show("failed", "not saved");
});
addEventListener("online", flush);
setInterval(flush, RETRY_MS);
flush();

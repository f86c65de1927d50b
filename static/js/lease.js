// The texts in hand stay in hand while the page is open, and go back to the others when it is left.
function sendLease(path) {
  const { "x-csrftoken": csrf } = JSON.parse(document.body.getAttribute("hx-headers"));
  const body = new URLSearchParams({
    csrfmiddlewaretoken: csrf,
    page_mark: document.getElementById("lease").dataset.pageMark,
  });
  return navigator.sendBeacon(path, body);
}

const lease = document.getElementById("lease").dataset;
setInterval(() => {
  if (document.visibilityState === "visible") sendLease(lease.renew);
}, Math.max(2000, (Number(lease.leaseS) * 1000) / 3));
addEventListener("pagehide", () => sendLease(lease.release));

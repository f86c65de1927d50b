// A fragment request that ends at the login page (the session ran out) takes the whole page there.
document.addEventListener("htmx:beforeSwap", (event) => {
  const url = event.detail.xhr.responseURL;
  if (url && new URL(url).pathname.includes("/accounts/login/")) {
    event.detail.shouldSwap = false;
    location.reload();
  }
});

// What was fetched to be read gets the focus.
document.addEventListener("htmx:afterSwap", (event) => {
  event.detail.target.querySelector("[data-takes-focus]")?.focus({ preventScroll: true });
});

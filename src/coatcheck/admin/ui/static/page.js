// What HTML alone cannot do. Every page works without it.
"use strict";

// Whoever goes back must find neither what was typed into a form nor a token that was shown once.
addEventListener("pagehide", () => {
  for (const form of document.querySelectorAll("form[data-forget]")) form.reset();
  for (const shown of document.querySelectorAll(".once")) shown.textContent = "shown once";
});
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

// A page that looks by itself ends no session's rest: after ten minutes without a key, a touch or a
// move it stops, and a page that nobody sees does not ask at all.
const REST_MS = 600_000;
let touched = Date.now();
for (const kind of ["keydown", "pointerdown", "pointermove", "scroll"])
  addEventListener(kind, () => { touched = Date.now(); }, { passive: true });

document.addEventListener("htmx:beforeRequest", (event) => {
  const asked = event.detail.elt.getAttribute("hx-trigger") || "";
  const idle = document.hidden || Date.now() - touched > REST_MS;
  // What is selected or has the focus in there would be lost.
  const parts = [event.detail.elt, document.getElementById("lines")];
  const busy = isSelecting() || parts.some((part) => part?.contains(document.activeElement));
  if (asked.startsWith("every") && (idle || busy)) event.preventDefault();
});
let wasOpen = false;
document.addEventListener("htmx:beforeSwap", () => {
  wasOpen = document.querySelector("#chart details")?.open ?? false;
});
document.addEventListener("htmx:afterSwap", () => {
  const numbers = document.querySelector("#chart details");
  if (numbers) numbers.open = wasOpen;
});
for (const kind of ["htmx:responseError", "htmx:sendError", "htmx:timeout"])
  document.addEventListener(kind, () => { document.getElementById("trouble").hidden = false; });
document.addEventListener("htmx:afterOnLoad", (event) => {
  if (event.detail.successful) document.getElementById("trouble").hidden = true;
});

function isSelecting() {
  const selection = getSelection();
  return selection !== null && !selection.isCollapsed;
}

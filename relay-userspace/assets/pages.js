// Enhancements; every page works without them.
"use strict";

// A form that is not as it was loaded says so, and asks before it is left.
document.addEventListener("input", (event) => {
  const form = event.target.closest("form.settings");
  if (form) form.dataset.changed = "yes";
});
document.addEventListener("submit", (event) => delete event.target.dataset.changed);
document.addEventListener("click", (event) => {
  if (event.target.closest("form.settings a.button")) delete event.target.closest("form.settings").dataset.changed;
});
window.addEventListener("beforeunload", (event) => {
  if (document.querySelector("form.settings[data-changed]")) event.preventDefault();
});

// Removing is asked about once more.
document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (button && button.classList.contains("danger") && !window.confirm(button.textContent.trim() + "?")) event.preventDefault();
});

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

// The page about a restart goes on by itself. The new daemon knows no session, so it answers with a redirection to its
// door, which the old one does not.
const restarting = document.querySelector("[data-restarting]");
if (restarting) {
  const asked = Date.now();
  const look = async () => {
    try {
      const answer = await fetch("/about", { redirect: "manual", cache: "no-store" });
      if (answer.type === "opaqueredirect") return location.replace("/");
    } catch {
      // It is away for a moment.
    }
    // A minute: after that somebody has to look.
    if (Date.now() - asked > 60000) restarting.hidden = false;
    else setTimeout(look, 500);
  };
  setTimeout(look, 500);
}

// What somebody has typed into a filter before the scripts were there, they have not heard of.
window.addEventListener("load", () => {
  for (const field of document.querySelectorAll("form[hx-get] input[type=search]")) {
    if (field.value !== field.defaultValue) field.form.requestSubmit();
  }
});

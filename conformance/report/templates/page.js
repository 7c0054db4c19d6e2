"use strict";
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async (event) => {
    event.preventDefault();
    const text = button.closest(".code, .case").querySelector("code").textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      // A page that is opened from a file may not use the clipboard: select the text instead.
      const box = button.closest(".code");
      if (box) box.open = true;
      getSelection().selectAllChildren(button.closest(".code, .case").querySelector("code"));
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
}
const rows = [...document.querySelectorAll(".ops tbody tr")];
const buttons = [...document.querySelectorAll("[data-outcome]")];
const search = document.getElementById("filter");
function filter() {
  const wanted = buttons.filter((b) => b.ariaPressed === "true").map((b) => b.dataset.outcome);
  const word = search.value.trim().toLowerCase();
  let shown = 0;
  for (const row of rows) {
    const outcomes = row.dataset.outcomes.split(" ");
    const match = row.dataset.name.includes(word) && (!wanted.length || wanted.some((o) => outcomes.includes(o)));
    row.hidden = !match;
    shown += match;
  }
  document.getElementById("shown").textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
}
search.addEventListener("input", filter);
for (const button of buttons) {
  button.addEventListener("click", () => {
    button.ariaPressed = button.ariaPressed === "true" ? "false" : "true";
    filter();
  });
}

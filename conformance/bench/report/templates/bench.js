"use strict";
const rows = [...document.querySelectorAll(".ops tbody tr")];
const search = document.getElementById("filter");
search.addEventListener("input", () => {
  const words = search.value.trim().toLowerCase().split(/\s+/);
  let shown = 0;
  for (const row of rows) {
    const name = row.dataset.name.toLowerCase();
    row.hidden = !words.every((word) => name.includes(word));
    shown += !row.hidden;
  }
  document.getElementById("shown").textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
});

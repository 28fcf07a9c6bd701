"use strict";
(() => {
  const form = document.getElementById("filter"), rows = [...document.querySelectorAll("tr[data-verdict]")];
  const show = () => {
    const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdicts = new Set([...form.querySelectorAll("input[type=checkbox]:checked")].map((box) => box.value));
    let seen = 0;
    for (const row of rows) {
      const text = (row.textContent + " " + row.closest("section").querySelector("h2").textContent + " " + row.closest("section").querySelector(".byline").textContent).toLowerCase();
      row.hidden = !verdicts.has(row.dataset.verdict) || !words.every((word) => text.includes(word));
      seen += row.hidden ? 0 : 1;
    }
    for (const study of document.querySelectorAll("section.study")) study.hidden = rows.length > 0 && !study.querySelector("tr[data-verdict]:not([hidden])");
    document.getElementById("nothing").hidden = seen > 0;
    form.querySelector("output").textContent = seen === rows.length ? `${seen} claims` : `${seen} of ${rows.length} claims`;
  };
  form.hidden = false;
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();

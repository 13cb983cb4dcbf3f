// Search, sort and hide in the list of experiments. The choice stays for as long as the browser's window does.
(function () {
  "use strict";
  const table = document.getElementById("experiments");
  const search = document.getElementById("search"), hide = document.getElementById("hide-finished");
  const found = document.getElementById("found");
  const NUMBERS = ["share", "best", "repeats", "began", "seconds"];
  let order = { key: "began", down: true };
  try {
    const kept = JSON.parse(sessionStorage.getItem("hpo-list") || "{}");
    search.value = kept.search || "";
    hide.checked = Boolean(kept.hide);
    order = kept.order || order;
  } catch (error) { /* no storage: the choice lasts for this page only */ }
  document.getElementById("filters").hidden = false;

  table.querySelectorAll("th[data-sort]").forEach(function (head) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", function () {
      const key = head.dataset.sort;
      order = { key: key, down: order.key === key ? !order.down : NUMBERS.includes(key) };
      apply();
    });
  });

  function value(row) {
    const text = row.dataset[order.key];
    if (!NUMBERS.includes(order.key)) return text.toLowerCase();
    return text === "" ? -Infinity : Number(text);
  }

  function apply() {
    const rows = Array.from(table.querySelectorAll("tr[data-row]"));
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach(function (row) {
      const text = row.dataset.words.toLowerCase();
      const fits = words.every(function (word) { return text.includes(word); });
      row.hidden = !fits || (hide.checked && row.dataset.state === "finished");
      shown += row.hidden ? 0 : 1;
    });
    rows.sort(function (a, b) {
      const x = value(a), y = value(b);
      return (x < y ? -1 : x > y ? 1 : 0) * (order.down ? -1 : 1);
    });
    const body = table.tBodies[0];
    const focused = document.activeElement;
    rows.forEach(function (row) { body.append(row); });
    if (focused && body.contains(focused)) focused.focus({ preventScroll: true });
    table.querySelectorAll("th[data-sort]").forEach(function (head) {
      if (head.dataset.sort === order.key) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    found.textContent = rows.length && shown < rows.length ? shown + " of " + rows.length : "";
    try {
      const kept = { search: search.value, hide: hide.checked, order: order };
      sessionStorage.setItem("hpo-list", JSON.stringify(kept));
    } catch (error) { /* as above */ }
  }

  search.addEventListener("input", apply);
  hide.addEventListener("change", apply);
  document.addEventListener("hpo-changed", apply);
  apply();
})();

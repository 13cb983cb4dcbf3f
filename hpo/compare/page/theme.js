// Before anything is painted: the theme that was chosen here, else the system's.
(function () {
  "use strict";
  let chosen = null;
  try { chosen = localStorage.getItem("hpo-theme"); } catch (error) { /* no storage: the system's theme */ }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();

// Loads plotly and each figure when it comes near the window; again when the numbers or what they are about change.
(function () {
  "use strict";
  const root = document.getElementById("figures-of");
  if (!root) return;
  const places = Array.from(root.querySelectorAll("[data-lazy]"));
  const near = new Set(), stale = new Set(places), loading = new Map();
  const chooser = document.getElementById("scope");
  let library = null;

  function plotly() {
    if (window.Plotly) return Promise.resolve();
    if (!library) library = new Promise(function (resolve, reject) {
      const script = document.createElement("script");
      script.src = root.dataset.plotly;
      script.onload = resolve;
      script.onerror = function () { library = null; reject(new Error("the script of the figures did not load")); };
      document.head.append(script);
    });
    return library;
  }

  function scope() { return chooser ? chooser.value : ""; }

  async function load(place) {
    const key = place.dataset.figure, about = scope();
    loading.set(place, key + about);
    stale.delete(place);
    const address = "/hpo/api/figure?" + root.dataset.query + "&figure=" + encodeURIComponent(key)
      + "&scope=" + encodeURIComponent(about);
    try {
      const [answer] = await Promise.all([fetch(address, { cache: "no-store" }), plotly()]);
      if (loading.get(place) !== key + about) return;
      const content = await answer.json();
      if (!answer.ok) throw new Error(content.error || answer.statusText);
      const card = place.closest(".card, .param");
      card.querySelector("[data-note]").textContent = content.note;
      const tables = place.closest(".card").querySelector("[data-tables]");
      if (tables && content.tables) tables.innerHTML = content.tables;
      await window.hpoFigures.draw(place, content.figure);
      place.dataset.scope = about;
      delete place.dataset.failed;
      if (content.token !== document.body.dataset.token) again(place);
    } catch (error) {
      place.dataset.failed = error.message;
      if (!place.dataset.drawn) place.textContent = "This figure cannot be drawn now: " + error.message;
      again(place);
    } finally {
      if (loading.get(place) === key + about) loading.delete(place);
    }
  }

  // The server gives the figures of a moment ago while it computes many trials: those are asked for once more.
  function again(place) {
    stale.add(place);
    setTimeout(function () { if (stale.has(place) && near.has(place)) load(place); }, 4000);
  }

  function refresh() {
    near.forEach(function (place) { if (stale.has(place) && !loading.has(place)) load(place); });
  }

  const watcher = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (entry.isIntersecting) near.add(entry.target); else near.delete(entry.target);
    });
    refresh();
  }, { rootMargin: "300px" });
  places.forEach(function (place) { watcher.observe(place); });

  document.addEventListener("hpo-changed", function () {
    places.forEach(function (place) { stale.add(place); });
    refresh();
  });
  document.addEventListener("hpo-switched", function (event) {
    stale.add(event.target);
    loading.delete(event.target);
    load(event.target);
  });
  if (chooser) {
    chooser.addEventListener("change", function () {
      loading.clear();
      places.forEach(function (place) { stale.add(place); });
      refresh();
    });
  }
  // Before the browser prints, or a test looks at everything, every figure is drawn.
  window.hpoLoadAll = function () { places.forEach(function (place) { near.add(place); }); refresh(); };
  addEventListener("beforeprint", window.hpoLoadAll);
})();

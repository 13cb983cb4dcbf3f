// Keeps a page up to date: asks for what has changed, replaces the marked places, says so when nobody answers.
(function () {
  "use strict";
  const body = document.body;
  const url = body.dataset.liveUrl;
  if (!url) return;
  const offline = document.querySelector(".offline");
  let token = body.dataset.token, seen = new Date(), live = true;

  function place(sections) {
    for (const [name, html] of Object.entries(sections)) {
      document.querySelectorAll("[data-live]").forEach(function (element) {
        if (element.dataset.live !== name) return;
        const open = Array.from(element.querySelectorAll("details"), function (details) { return details.open; });
        element.innerHTML = html;
        element.querySelectorAll("details").forEach(function (details, i) { details.open = Boolean(open[i]); });
      });
    }
  }

  async function poll() {
    try {
      const answer = await fetch(url + "have=" + encodeURIComponent(token), { cache: "no-store" });
      if (answer.status === 401) { location.reload(); return; }
      const content = await answer.json();
      if (!answer.ok) throw new Error(content.error || answer.statusText);
      offline.hidden = true;
      seen = new Date();
      if (!content.unchanged) {
        if (content.shape !== (body.dataset.shape || "")) { location.reload(); return; }
        token = content.token;
        live = content.live;
        place(content.sections);
        window.hpoFigures.update(content.figures);
        body.dataset.shown = token;
      }
    } catch (error) {
      const reason = error instanceof TypeError ? "The dashboard does not answer" : error.message;
      offline.textContent = reason + ". These numbers are of " + seen.toLocaleTimeString() + "; trying again.";
      offline.hidden = false;
    }
    setTimeout(poll, offline.hidden && !live ? 10000 : 2000);
  }

  poll();
})();

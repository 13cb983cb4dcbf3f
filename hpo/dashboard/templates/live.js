// Keeps a page up to date. Asks for what has changed and replaces the marked places; asks less and less often while
// nothing changes, and not at all while the page is hidden or once the experiment is finished and stays so.
(function () {
  "use strict";
  const body = document.body;
  const url = body.dataset.liveUrl;
  if (!url) return;
  const FIRST = 2000, LONGEST = 30000, QUIET_POLLS = 3;
  const offline = document.querySelector(".offline");
  let token = body.dataset.token, seen = new Date(), live = body.dataset.liveNow === "yes";
  let wait = FIRST, quiet = 0, timer = null, asking = false, gone = false;

  function place(sections) {
    for (const [name, html] of Object.entries(sections)) {
      document.querySelectorAll("[data-live]").forEach(function (element) {
        if (element.dataset.live !== name || element.innerHTML === html) return;
        const open = Array.from(element.querySelectorAll("details"), function (details) { return details.open; });
        const held = element.contains(document.activeElement) ? describe(element, document.activeElement) : null;
        element.innerHTML = html;
        element.querySelectorAll("details").forEach(function (details, i) { details.open = Boolean(open[i]); });
        if (held) restore(element, held);
      });
    }
  }

  // What has the keyboard's focus keeps it: the element of the same kind at the same place.
  function describe(root, element) {
    const tag = element.tagName;
    return { tag: tag, index: Array.from(root.querySelectorAll(tag)).indexOf(element) };
  }
  function restore(root, held) {
    const found = root.querySelectorAll(held.tag)[held.index];
    if (found) found.focus({ preventScroll: true });
  }

  function say(text) { offline.textContent = text; offline.hidden = false; }

  async function poll() {
    timer = null;
    if (document.hidden || asking || gone) return;
    asking = true;
    try {
      const answer = await fetch(url + "have=" + encodeURIComponent(token), { cache: "no-store" });
      if (answer.status === 401) { location.reload(); return; }
      const content = await answer.json();
      if (answer.status === 404) {
        gone = true;
        say("This experiment is no longer in the database: it was deleted. What is shown here is of "
          + seen.toLocaleTimeString() + ".");
        return;
      }
      if (!answer.ok) throw new Error(content.error || answer.statusText);
      offline.hidden = true;
      seen = new Date();
      live = content.live;
      if (content.shape !== undefined && content.shape !== (body.dataset.shape || "")) { location.reload(); return; }
      if (content.sections) place(content.sections);
      if (content.unchanged) {
        quiet += 1;
        wait = Math.min(LONGEST, wait * 1.5);
      } else {
        token = content.token;
        quiet = 0;
        wait = FIRST;
        body.dataset.token = token;
        document.dispatchEvent(new CustomEvent("hpo-changed"));
      }
      body.dataset.shown = token;
    } catch (error) {
      const reason = error instanceof TypeError ? "The dashboard does not answer" : error.message;
      say(reason + ". These numbers are of " + seen.toLocaleTimeString() + "; trying again.");
      wait = Math.min(10000, wait * 1.5);
    } finally {
      asking = false;
    }
    later();
  }

  function later() {
    if (gone || timer !== null || document.hidden) return;
    if (!live && quiet >= QUIET_POLLS && offline.hidden) { body.dataset.polling = "stopped"; return; }
    body.dataset.polling = "on";
    timer = setTimeout(poll, wait);
  }

  // Somebody looks again: ask at once, and then as often as at first.
  function wake() {
    if (document.hidden || asking || gone) return;
    wait = FIRST; quiet = 0;
    if (timer !== null) { clearTimeout(timer); timer = null; }
    poll();
  }
  document.addEventListener("visibilitychange", wake);
  addEventListener("focus", wake);
  addEventListener("online", wake);

  document.addEventListener("click", async function (event) {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const before = button.dataset.label || button.textContent;
    button.dataset.label = before;
    try {
      const answer = await fetch(button.dataset.copy, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      await copy(await answer.text());
      button.textContent = "Copied";
    } catch (error) {
      button.textContent = "Not copied";
    }
    setTimeout(function () { button.textContent = before; }, 4000);
  });

  // Browsers give the clipboard only to pages over HTTPS or of this machine; elsewhere a selection is copied.
  async function copy(text) {
    if (navigator.clipboard && isSecureContext) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("refused");
  }

  later();
})();

// Draws every place marked data-figure in the colours of the page, and redraws on a switch, a new theme or new numbers.
(function () {
  "use strict";
  const root = document.documentElement;
  let figures = {};
  const embedded = document.getElementById("figures");
  if (embedded) figures = JSON.parse(embedded.textContent);

  function color(name) { return getComputedStyle(root).getPropertyValue(name).trim(); }

  function themed(layout) {
    const line = color("--line"), text = color("--text");
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: color("--faint"), tickcolor: line };
    const narrow = innerWidth < 600;
    return Object.assign({}, layout, {
      font: { family: getComputedStyle(document.body).fontFamily, color: text, size: narrow ? 11 : 13 },
      modebar: { bgcolor: "rgba(0, 0, 0, 0)", color: text, activecolor: text },
      hoverlabel: { bgcolor: color("--card"), bordercolor: line, font: { color: text } },
      xaxis: Object.assign({}, axis, layout.xaxis),
      yaxis: Object.assign({}, axis, layout.yaxis),
    });
  }

  function draw(place) {
    const figure = figures[place.dataset.figure];
    if (!figure) return Promise.resolve();
    if (!place.dataset.drawn) place.textContent = "";
    place.classList.toggle("empty", figure.data.length === 0);
    const options = { responsive: true, displaylogo: false, displayModeBar: innerWidth < 600 ? false : "hover" };
    return Plotly.react(place, figure.data, themed(figure.layout), options).then(function () {
      place.dataset.drawn = place.dataset.figure;
    });
  }

  function drawAll() { if (window.Plotly) document.querySelectorAll("[data-figure]").forEach(draw); }

  document.addEventListener("click", function (event) {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.switch) {
      button.parentElement.querySelectorAll("button").forEach(function (other) {
        other.setAttribute("aria-pressed", String(other === button));
      });
      const card = button.closest(".card");
      const place = card.querySelector("[data-figure]");
      const chosen = {};
      card.querySelectorAll("button[aria-pressed=true]").forEach(function (on) {
        chosen[on.dataset.switch] = on.dataset.value;
      });
      place.dataset.figure = (place.dataset.prefix || "") + "curve_" + chosen.axis + "_"
        + (chosen.statistic || "median") + "_" + chosen.scale;
      if (place.hasAttribute("data-lazy")) place.dispatchEvent(new CustomEvent("hpo-switched", { bubbles: true }));
      else draw(place);
    } else if (button.hasAttribute("data-theme-switch")) {
      root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("hpo-theme", root.dataset.theme); } catch (error) { /* it lasts for this page only */ }
      drawAll();
    }
  });

  window.hpoFigures = {
    draw: function (place, figure) { figures[place.dataset.figure] = figure; return draw(place); },
  };
  drawAll();
})();

"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const themes = ["system", "light", "dark"];
  const remember = (value) => { try { localStorage.setItem("finseek-theme", value); } catch { /* private window */ } };
  const recall = () => { try { return localStorage.getItem("finseek-theme"); } catch { return null; } };
  const wear = (theme) => {
    if (theme === "system") root.removeAttribute("data-theme"); else root.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    button.dataset.now = theme;
  };
  wear(themes.includes(recall()) ? recall() : "system");
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(button.dataset.now) + 1) % themes.length];
    wear(next);
    remember(next);
  });

  // A table is a stop of the keyboard only where there is something to scroll to.
  const fit = () => {
    for (const box of document.querySelectorAll(".scroll")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute("tabindex");
    }
  };
  fit();
  addEventListener("resize", fit);
  document.addEventListener("toggle", fit, true);

  // Nobody can unfold paper: what is folded is printed open.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open], .figures)")];
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of folded) part.open = false; });

  for (const figure of document.querySelectorAll(".chart")) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    if (!data.at.length) continue;
    const plot = figure.querySelector(".plot");
    const hair = figure.querySelector(".hair");
    const at = figure.querySelector(".legend .at");
    const keys = [...figure.querySelectorAll(".legend .key")];
    const last = keys.map((key) => key.querySelector("b").textContent);
    const latest = at.textContent;
    const slider = document.createElement("input");
    slider.type = "range";
    slider.min = 0;
    slider.max = data.at.length - 1;
    slider.value = slider.max;
    slider.className = "only-heard";
    slider.setAttribute("aria-label", `Read values of: ${data.title}`);
    figure.querySelector(".frame").before(slider);
    const read = (i) => {
      hair.hidden = false;
      hair.style.left = `${data.at[i] * 100}%`;
      at.textContent = data.axis + data.names[i];
      keys.forEach((key, k) => { key.querySelector("b").textContent = data.values[k][i]; });
      const spoken = keys.map((key) => key.textContent.trim()).join(", ");
      slider.setAttribute("aria-valuetext", `${data.names[i]}: ${spoken}`);
    };
    const rest = () => {
      hair.hidden = true;
      at.textContent = latest;
      keys.forEach((key, k) => { key.querySelector("b").textContent = last[k]; });
    };
    const nearest = (place) => {
      let low = 0;
      let high = data.at.length - 1;
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (data.at[middle] < place) low = middle; else high = middle;
      }
      return place - data.at[low] < data.at[high] - place ? low : high;
    };
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      slider.value = nearest((event.clientX - box.left) / box.width);
      read(Number(slider.value));
    });
    plot.addEventListener("pointerleave", rest);
    slider.addEventListener("input", () => read(Number(slider.value)));
    slider.addEventListener("focus", () => read(Number(slider.value)));
    slider.addEventListener("blur", rest);
  }
})();

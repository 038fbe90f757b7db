"use strict";
(() => {
  const maps = JSON.parse(document.getElementById("maps").textContent);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const dots = (flat) => {
    let d = "";
    for (let k = 0; k < flat.length; k += 2) d += `M${flat[k]} ${flat[k + 1]}h0`;
    return d;
  };

  for (const box of document.querySelectorAll("[data-map]")) {
    const { methods } = maps[Number(box.dataset.map)];
    const svg = box.querySelector(".stage svg");
    const paths = { warm: svg.querySelector(".warm"), cold: svg.querySelector(".cold") };
    const slider = box.querySelector("input[type=range]");
    const output = box.querySelector("output");
    const button = box.querySelector("button");
    const select = box.querySelector("select");
    const ends = box.querySelectorAll(".ends span");
    let points = methods[Object.keys(methods)[0]];
    let now = null; // places that are drawn, while they move
    let frame = 0;
    let timer = 0;

    const draw = (kind, flat) => paths[kind].setAttribute("d", dots(flat));
    const show = (k, glide) => {
      const next = { warm: points.warm[k], cold: points.cold[k] };
      const round = points.rounds[k];
      output.textContent = round;
      slider.setAttribute("aria-valuetext", `round ${round}`);
      const method = select ? select.value : Object.keys(methods)[0];
      svg.setAttribute(
        "aria-label",
        `${next.warm.length / 2} warm and ${next.cold.length / 2} generated cold items of ` +
          `${method} in two principal components at round ${round}`
      );
      cancelAnimationFrame(frame);
      const before = now;
      const fits =
        before && ["warm", "cold"].every((kind) => before[kind].length === next[kind].length);
      if (!glide || still.matches || !fits) {
        for (const kind of ["warm", "cold"]) draw(kind, next[kind]);
        now = next;
        return;
      }
      const start = performance.now();
      const step = (time) => {
        const share = Math.min(1, Math.max(0, (time - start) / 450));
        const eased = share * share * (3 - 2 * share);
        now = {};
        for (const kind of ["warm", "cold"]) {
          const from = before[kind];
          now[kind] = next[kind].map((to, i) => Math.round(from[i] + (to - from[i]) * eased));
          draw(kind, now[kind]);
        }
        if (share < 1) frame = requestAnimationFrame(step);
      };
      frame = requestAnimationFrame(step);
    };
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      box.classList.remove("playing");
      button.setAttribute("aria-label", "Play the rounds");
    };
    const play = () => {
      box.classList.add("playing");
      button.setAttribute("aria-label", "Stop");
      if (Number(slider.value) === Number(slider.max)) {
        slider.value = 0;
        show(0, true);
      }
      timer = setInterval(() => {
        slider.value = Number(slider.value) + 1;
        show(Number(slider.value), true);
        if (Number(slider.value) === Number(slider.max)) stop();
      }, 900);
    };

    show(Number(slider.value), false);
    slider.addEventListener("input", () => {
      stop();
      show(Number(slider.value), true);
    });
    button.disabled = slider.disabled;
    button.addEventListener("click", () => (timer ? stop() : play()));
    select?.addEventListener("change", () => {
      stop();
      points = methods[select.value];
      slider.max = points.rounds.length - 1;
      slider.value = slider.max;
      slider.disabled = button.disabled = points.rounds.length < 2;
      ends[0].textContent = points.rounds[0];
      ends[1].textContent = points.rounds[points.rounds.length - 1];
      box.querySelector(".which").textContent = select.value;
      now = null;
      show(Number(slider.value), false);
    });
  }

  const tip = document.getElementById("tip");
  const hide = () => (tip.hidden = true);
  const tell = (event) => {
    const mark = event.target.closest?.("[data-tip]");
    if (!mark) return hide();
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const at = mark.getBoundingClientRect();
    const half = tip.offsetWidth / 2;
    const x = Math.min(Math.max(at.left + at.width / 2, half + 8), innerWidth - half - 8);
    const above = at.top - tip.offsetHeight - 10;
    tip.style.left = `${x - half}px`;
    tip.style.top = `${above > 4 ? above : at.bottom + 10}px`;
  };
  document.addEventListener("pointerover", tell);
  document.addEventListener("pointerdown", tell);
  document.addEventListener("scroll", hide, { passive: true });
})();

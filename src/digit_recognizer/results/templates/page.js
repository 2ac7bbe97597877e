"use strict";

// Values of a chart where the pointer is, or where the arrow keys go.
const tip = document.getElementById("tip");
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }; // down, along
const MOST_LINES = 12; // of the tip: with more series it shows the nearest alone

function charts() {
  for (const svg of document.querySelectorAll("svg[data-values]")) {
    const series = JSON.parse(svg.dataset.values).filter((line) => line.points.length);
    if (!series.length) continue;
    const cursor = svg.querySelector(".cursor");
    let at = null; // series, point

    const show = (number, index, left, top) => {
      at = [number, index];
      const [x, y, name] = series[number].points[index];
      cursor.setAttribute("cx", x);
      cursor.setAttribute("cy", y);
      cursor.setAttribute("visibility", "visible");
      const lines = [`${svg.dataset.x} ${name}`];
      series.forEach((line, other) => {
        if (series.length > MOST_LINES && other !== number) return;
        const point = line.points.find((candidate) => candidate[2] === name);
        if (point) lines.push(`${other === number && series.length > 1 ? "\u25b8 " : ""}${line.name}: ${point[3]}`);
      });
      tip.textContent = lines.join("\n");
      const box = tip.getBoundingClientRect();
      const beside = left + 14 + box.width > window.innerWidth ? left - 14 - box.width : left + 14;
      tip.style.left = `${Math.max(4, beside)}px`;
      tip.style.top = `${top + 14 + box.height > window.innerHeight ? Math.max(4, top - box.height - 10) : top + 14}px`;
    };
    const hide = () => {
      cursor.setAttribute("visibility", "hidden");
      tip.textContent = "";
    };
    const place = (number, index) => {
      const box = svg.getBoundingClientRect();
      const scale = box.width / svg.viewBox.baseVal.width;
      const [x, y] = series[number].points[index];
      show(number, index, box.left + x * scale, box.top + y * scale);
    };

    const lines = svg.querySelectorAll("g[class^=c]");
    for (const name of svg.parentElement.querySelectorAll(".legend li")) { // the pointer on a name fades the other lines
      const fade = (others) => lines.forEach((line) => line.classList.toggle("faded", others && !line.classList.contains(name.className)));
      name.addEventListener("pointerenter", () => fade(true));
      name.addEventListener("pointerleave", () => fade(false));
    }
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const scale = box.width / svg.viewBox.baseVal.width;
      const x = (event.clientX - box.left) / scale, y = (event.clientY - box.top) / scale;
      let nearest = [Infinity, 0, 0];
      series.forEach((line, number) => line.points.forEach((point, index) => {
        const distance = Math.hypot(point[0] - x, point[1] - y);
        if (distance < nearest[0]) nearest = [distance, number, index];
      }));
      show(nearest[1], nearest[2], event.clientX, event.clientY);
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
      if (!(event.key in STEPS)) return;
      event.preventDefault();
      if (!at) return place(0, 0);
      const [down, along] = STEPS[event.key];
      const number = (at[0] + down + series.length) % series.length;
      place(number, Math.max(0, Math.min(at[1] + along, series[number].points.length - 1)));
    });
  }
}

// A click on a number of the matrix, or on another button with a filter, shows these errors alone; a second click, or the button, shows all again.
function gallery() {
  const buttons = document.querySelectorAll("button[data-filter]");
  const figures = document.querySelectorAll("#errors-gallery .digit");
  const status = document.getElementById("filter-status");
  const all = document.getElementById("show-all");
  if (!status) return;
  const unfiltered = status.textContent;

  const filter = (pair, name) => {
    let count = 0;
    for (const figure of figures) {
      figure.hidden = pair !== null && (pair === "confident" ? !("confident" in figure.dataset) : figure.dataset.pair !== pair);
      if (!figure.hidden) count += 1;
    }
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.filter === pair));
    if (pair !== null) more("errors-gallery");
    status.textContent = pair === null ? unfiltered : `${count} of ${figures.length} errors: ${name}`;
    all.hidden = pair === null;
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-pressed") === "true") return filter(null);
      filter(button.dataset.filter, button.dataset.name);
      document.getElementById("errors").scrollIntoView();
    });
  }
  all.addEventListener("click", () => {
    filter(null);
    status.focus();
  });
}

// A gallery shows its first pictures, and a button the others; without this script all are shown.
const SHOWN = matchMedia("(max-width: 36rem)").matches ? 12 : 36; // as in the style
function more(id) {
  const gallery = document.getElementById(id);
  gallery.classList.remove("short");
  gallery.nextElementSibling.hidden = true;
}
function shorten() {
  for (const gallery of document.querySelectorAll(".gallery")) {
    if (gallery.children.length <= SHOWN) continue;
    gallery.classList.add("short");
    gallery.nextElementSibling.hidden = false;
    gallery.nextElementSibling.addEventListener("click", () => more(gallery.id));
  }
}

// The matrix is one stop of the Tab key; the arrow keys go from number to number in it.
function matrix() {
  const buttons = [...document.querySelectorAll("#matrix button")];
  const place = (button) => [button.closest("tr").rowIndex, button.closest("td").cellIndex];
  buttons.forEach((button, number) => {
    button.tabIndex = number ? -1 : 0;
    button.addEventListener("focus", () => buttons.forEach((other) => { other.tabIndex = other === button ? 0 : -1; }));
    button.addEventListener("keydown", (event) => {
      if (!(event.key in STEPS)) return;
      event.preventDefault();
      const [down, along] = STEPS[event.key], [row, column] = place(button);
      const next = buttons
        .map((other) => [other, (place(other)[0] - row) * down + (place(other)[1] - column) * along, place(other)])
        .filter(([, distance, [r, c]]) => distance > 0 && (down ? c === column : r === row))
        .sort((a, b) => a[1] - b[1])[0];
      if (next) next[0].focus();
    });
  });
}

// A page of an unfinished run reads itself again.
function refresh() {
  const seconds = Number(document.body.dataset.refresh);
  const box = document.getElementById("refresh");
  if (!seconds || !box) return;
  setInterval(() => {
    if (box.checked) location.reload();
  }, seconds * 1000);
}

charts();
shorten();
gallery();
matrix();
refresh();

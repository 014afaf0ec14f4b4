"use strict";
// Shows the values under the pointer, or those that the arrow keys reach. Without it, the page
// loses only these. The open page of a run that trains loads itself again.
const SVG = "http://www.w3.org/2000/svg";
let pointing = false;

function show(plot, panels, place) {
  const svg = plot.querySelector("svg");
  const view = svg.viewBox.baseVal;
  const panel = panels.find(p => place.x <= p.box[2] + 8) || panels[panels.length - 1];
  let nearest = null;
  for (const curve of panel.curves)
    for (const point of curve.points)
      if (nearest === null || Math.abs(point[0] - place.x) < Math.abs(nearest - place.x))
        nearest = point[0];
  if (nearest === null) return;
  hide(plot);
  const group = document.createElementNS(SVG, "g");
  group.setAttribute("class", "pointer");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", `M${nearest} ${panel.box[1]}V${panel.box[3]}`);
  line.style.stroke = "var(--quiet)";
  group.append(line);
  const tip = document.createElement("div");
  tip.className = "tip";
  let head = null;
  const rows = [];
  for (const curve of panel.curves) {
    let own = null;
    for (const point of curve.points)
      if (own === null || Math.abs(point[0] - nearest) < Math.abs(own[0] - nearest)) own = point;
    if (Math.abs(own[0] - nearest) > 6) continue;
    if (own[0] === nearest) head = own[2];
    const dot = document.createElementNS(SVG, "circle");
    dot.setAttribute("cx", own[0]);
    dot.setAttribute("cy", own[1]);
    dot.setAttribute("r", 3.5);
    dot.setAttribute("style", `fill: ${curve.colour}`);
    group.append(dot);
    const row = document.createElement("div");
    const mark = document.createElement("i");
    row.append(mark, `${curve.name ? curve.name + " " : ""}${own[3]}`);
    rows.push({ row, mark, dot, y: own[1] });
  }
  rows.sort((a, b) => a.y - b.y);
  const title = document.createElement("strong");
  title.textContent = `${head} ${panel.x}`;
  tip.append(title, ...rows.map(each => each.row));
  svg.append(group);
  for (const each of rows) each.mark.style.background = getComputedStyle(each.dot).fill;
  plot.append(tip);
  const scale = svg.clientWidth / view.width;
  const left = nearest * scale;
  const turned = left + tip.offsetWidth + 16 > plot.clientWidth && left > tip.offsetWidth + 16;
  tip.style.left = `${turned ? left - tip.offsetWidth - 10 : left + 10}px`;
  tip.style.top = `${Math.max(0, (panel.box[1] - view.y) * scale)}px`;
  plot.nearest = { x: nearest, panel };
}

function hide(plot) {
  for (const each of plot.querySelectorAll(".tip, .pointer")) each.remove();
}

function step(plot, panels, by) {
  const places = [];
  for (const panel of panels)
    for (const curve of panel.curves) for (const point of curve.points) places.push(point[0]);
  const all = [...new Set(places)].sort((a, b) => a - b);
  const now = plot.nearest ? all.indexOf(plot.nearest.x) : by > 0 ? -1 : all.length;
  const next = Math.min(Math.max(now + by, 0), all.length - 1);
  show(plot, panels, { x: all[next] });
}

for (const plot of document.querySelectorAll(".plot")) {
  const data = plot.querySelector("script");
  if (!data) continue;
  const panels = JSON.parse(data.textContent);
  const svg = plot.querySelector("svg");
  plot.tabIndex = 0;
  plot.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    pointing = true;
    show(plot, panels, { x: ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width });
  });
  const leave = () => { pointing = false; hide(plot); };
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", event => {
    const by = { ArrowRight: 1, ArrowLeft: -1, Home: -1e9, End: 1e9 }[event.key];
    if (event.key === "Escape") leave();
    if (by === undefined) return;
    event.preventDefault();
    pointing = true;
    step(plot, panels, by);
  });
}

const seconds = Number(document.body.dataset.refresh || 0);
if (seconds > 0)
  setInterval(() => { if (!pointing && !document.hidden) location.reload(); }, seconds * 1000);

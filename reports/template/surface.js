"use strict";
for (const box of document.querySelectorAll("[data-surface]")) {
  const s = JSON.parse(box.dataset.surface), z = s.z, rows = z.length, cols = z[0].length;
  const finite = z.flat().filter((v) => v !== null), low = Math.min(...finite), high = Math.max(...finite), span = high - low || 1;
  const canvas = box.appendChild(document.createElement("canvas")), hint = box.appendChild(document.createElement("p"));
  hint.className = "hint"; canvas.tabIndex = 0; canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", s.alt + " Arrow keys turn it.");
  const say = (v) => String(Number(v.toPrecision(4))).replace("-", "−");
  let turn = 40, tilt = 34;
  const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const colour = (t, shade) => { const k = Math.min(3, Math.floor(t * 4)), f = t * 4 - k; return `rgb(${stops[k].map((c, i) => Math.round((c + f * (stops[k + 1][i] - c)) * shade)).join()})`; };
  const draw = () => {
    const w = canvas.clientWidth || 600, h = Math.round(w * 0.62), dpr = devicePixelRatio || 1, g = canvas.getContext("2d");
    canvas.width = w * dpr; canvas.height = h * dpr; g.scale(dpr, dpr);
    const a = turn * Math.PI / 180, e = tilt * Math.PI / 180, ca = Math.cos(a), sa = Math.sin(a), ce = Math.cos(e), se = Math.sin(e), size = Math.min(w * 0.62, h * 0.6);
    const at = (x, y, v) => { const u = x * ca - y * sa, d = x * sa + y * ca; return [w / 2 + u * size, h * 0.47 - (v * ce * 0.75 - d * se) * size, d]; };
    const X = (j) => j / (cols - 1) - 0.5, Y = (i) => i / (rows - 1) - 0.5, V = (v) => (v - low) / span - 0.5;
    const style = getComputedStyle(box), ink = style.getPropertyValue("--muted"), line = style.getPropertyValue("--strong-rule");
    const path = (points) => { g.beginPath(); points.forEach((p, i) => (i ? g.lineTo(p[0], p[1]) : g.moveTo(p[0], p[1]))); };
    g.strokeStyle = line; g.lineWidth = 1; path([at(-0.5, -0.5, -0.5), at(0.5, -0.5, -0.5), at(0.5, 0.5, -0.5), at(-0.5, 0.5, -0.5)]); g.closePath(); g.stroke();
    const faces = [];
    for (let i = 0; i + 1 < rows; i++) for (let j = 0; j + 1 < cols; j++) {
      const v = [z[i][j], z[i][j + 1], z[i + 1][j + 1], z[i + 1][j]];
      if (v.includes(null)) continue;
      const p = [at(X(j), Y(i), V(v[0])), at(X(j + 1), Y(i), V(v[1])), at(X(j + 1), Y(i + 1), V(v[2])), at(X(j), Y(i + 1), V(v[3]))];
      const slope = ((v[1] - v[0]) * cols + (v[3] - v[0]) * rows) / span;
      faces.push([p.reduce((d, q) => d + q[2], 0), p, colour((v[0] + v[1] + v[2] + v[3] - 4 * low) / (4 * span), 0.9 + 0.1 * Math.tanh(slope / 3))]);
    }
    faces.sort((p, q) => p[0] - q[0]);
    for (const [, p, c] of faces) { g.fillStyle = g.strokeStyle = c; path(p); g.closePath(); g.fill(); g.stroke(); }
    g.fillStyle = ink; g.font = "13px system-ui, sans-serif"; g.textAlign = "center";
    const near = ca > 0 ? 0.62 : -0.62, side = sa > 0 ? 0.62 : -0.62;
    for (const [text, p] of [[s.labels[0], at(0, near, -0.5)], [s.labels[1], at(side, 0, -0.5)]]) g.fillText(text, Math.max(60, Math.min(w - 60, p[0])), Math.min(h - 6, p[1] + 14));
    hint.textContent = `${s.labels[2]} from ${say(low)} to ${say(high)} · drag, or use the arrow keys (Home resets)`;
  };
  const move = (dt, de) => { turn = (turn + dt + 360) % 360; tilt = Math.max(5, Math.min(85, tilt + de)); draw(); };
  let from = null;
  canvas.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => { if (from) { move((from[0] - event.clientX) / 3, (event.clientY - from[1]) / 3); from = [event.clientX, event.clientY]; } });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { from = null; });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [5, 0], ArrowRight: [-5, 0], ArrowUp: [0, 4], ArrowDown: [0, -4], Home: [40 - turn, 34 - tilt] }[event.key];
    if (step) { event.preventDefault(); move(...step); }
  });
  box.classList.add("live"); draw();
  addEventListener("resize", draw); document.addEventListener("themechange", draw);
}

"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const T = data.tokens.length, L = data.layers, N = data.heads;
const weights = Uint8Array.from(atob(data.attention), (c) => c.charCodeAt(0));
const get = (id) => document.getElementById(id);
const at = (layer, head, query, key) => weights[((layer * N + head) * T + query) * T + key] / 255;
let held = null, pointed = null;

function weight(query, key) {
  const layer = +get("layer").value;
  if (!get("mean").checked) return at(layer, +get("head").value, query, key);
  let sum = 0;
  for (let head = 0; head < N; head++) sum += at(layer, head, query, key);
  return sum / N;
}

const percent = (p) => (100 * p).toFixed(p < 0.1 ? 1 : 0) + "%";
const list = (pairs) => pairs.map(([name, p]) => `${name} ${percent(p)}`).join("   ");

function showTokens() {
  const most = Math.max(1, ...data.losses.filter((x) => x !== null));
  data.tokens.forEach((token, i) => {
    const span = document.createElement("span");
    span.textContent = token;
    span.onmouseenter = () => point(i);
    span.onmouseleave = () => point(held);
    span.onclick = () => { held = held === i ? null : i; point(i); };
    span.dataset.loss = data.losses[i] === null ? 0 : data.losses[i] / most;
    get("tokens").append(span);
    if (token.endsWith("↵")) get("tokens").append("\n");
  });
}

function colour() {
  [...get("tokens").children].forEach((span, i) => {
    const p = pointed;
    span.classList.toggle("on", i === p);
    span.style.background = p === null || i > p
      ? `rgba(var(--red), ${0.75 * span.dataset.loss})`
      : `rgba(var(--blue), ${0.85 * weight(p, i)})`;
    if (p !== null && i > p) span.style.background = "none";
  });
}

function point(i) {
  pointed = i;
  if (i === null) {
    get("expected").textContent = "";
  } else if (i === 0) {
    get("expected").textContent = "the first token has nothing before it";
  } else {
    const loss = data.losses[i];
    get("expected").textContent =
      `${data.tokens[i]}  ${loss.toFixed(2)} nats, p = ${percent(Math.exp(-loss))}   ` +
      `expected: ${list(data.lens[L - 1][i - 1])}`;
  }
  colour();
}

function paint(canvas, value, size) {
  canvas.width = canvas.height = T;
  canvas.style.width = canvas.style.height = size + "px";
  const context = canvas.getContext("2d"), image = context.createImageData(T, T);
  for (let q = 0; q < T; q++) {
    for (let k = 0; k < T; k++) {
      const w = k > q ? 0 : Math.sqrt(value(q, k)), o = 4 * (q * T + k);
      image.data.set([255 - 222 * w, 255 - 153 * w, 255 - 83 * w, 255], o);
    }
  }
  context.putImageData(image, 0, 0);
}

function drawHeads() {
  const grid = get("heads");
  grid.style.gridTemplateColumns = `repeat(${Math.min(N, 16)}, 44px)`;
  for (let layer = 0; layer < L; layer++) {
    for (let head = 0; head < N; head++) {
      const canvas = document.createElement("canvas");
      canvas.title = `layer ${layer + 1}, head ${head + 1}`;
      canvas.onclick = () => { get("layer").value = layer; get("head").value = head;
        get("mean").checked = false; draw(); };
      paint(canvas, (q, k) => at(layer, head, q, k), 44);
      canvas.style.width = canvas.style.height = "";
      grid.append(canvas);
    }
  }
}

function draw() {
  paint(get("map"), weight, Math.min(520, Math.max(260, 9 * T)));
  const on = +get("layer").value * N + +get("head").value;
  [...get("heads").children].forEach((c, i) =>
    c.classList.toggle("on", i === on && !get("mean").checked));
  colour();
}

function drawLens() {
  const table = get("lens");
  const head = table.insertRow();
  head.append(document.createElement("th"));
  data.tokens.forEach((token) => {
    const th = document.createElement("th");
    th.textContent = token;
    head.append(th);
  });
  for (let layer = L - 1; layer >= 0; layer--) {
    const row = table.insertRow(), name = document.createElement("th");
    name.textContent = `layer ${layer + 1}`;
    row.append(name);
    data.lens[layer].forEach((top, i) => {
      const cell = row.insertCell(), [token, p] = top[0];
      cell.textContent = token;
      cell.style.background = `rgba(var(--blue), ${0.08 + 0.8 * p})`;
      cell.style.color = p > 0.55 ? "white" : "inherit";
      cell.title = `after ${data.tokens[i]}: ${list(top)}   entropy ${data.entropy[layer][i]} nats`;
      if (i + 1 < T && token === data.tokens[i + 1]) cell.classList.add("right");
    });
  }
}

for (let i = 0; i < L; i++) get("layer").add(new Option(i + 1, i));
for (let i = 0; i < N; i++) get("head").add(new Option(i + 1, i));
get("layer").value = L - 1;
for (const id of ["layer", "head", "mean"]) get(id).onchange = draw;
get("map").onmousemove = (event) => {
  const box = get("map").getBoundingClientRect();
  const q = Math.floor(((event.clientY - box.top) / box.height) * T);
  const k = Math.floor(((event.clientX - box.left) / box.width) * T);
  if (q < 0 || k < 0 || q >= T || k > q) return;
  get("where").textContent = `${data.tokens[q]} attends to ${data.tokens[k]}: ${percent(weight(q, k))}`;
};
showTokens();
drawHeads();
draw();
drawLens();

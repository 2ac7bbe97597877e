"use strict";

const canvas = document.getElementById("canvas"), paper = canvas.getContext("2d");
const sent = document.createElement("canvas"); // the same, smaller
sent.width = canvas.dataset.width;
sent.height = canvas.dataset.height;
const sheet = sent.getContext("2d", { willReadFrequently: true });
const PEN = canvas.height / 14; // width of a stroke: two pixels of the network, if a digit is as high as the paper
const reading = document.getElementById("reading"), digits = document.getElementById("digits");

const strokes = []; // each a list of [x, y] in pixels of the canvas
let pointer = null; // the id of the one that draws
let isReady = false, isReading = false, isChanged = false;

function paint() {
  paper.fillStyle = "#fff";
  paper.fillRect(0, 0, canvas.width, canvas.height);
  paper.strokeStyle = "#000";
  paper.lineWidth = PEN;
  paper.lineCap = paper.lineJoin = "round";
  for (const [first, ...others] of strokes) {
    paper.beginPath();
    paper.moveTo(...first);
    for (const point of [...others, others.at(-1) ?? first]) paper.lineTo(...point); // one point makes a dot
    paper.stroke();
  }
}

function change() {
  paint();
  isChanged = true;
  read();
}

// The grey values, a byte each.
function pixels() {
  sheet.drawImage(canvas, 0, 0, sent.width, sent.height);
  return sheet.getImageData(0, 0, sent.width, sent.height).data.filter((_, index) => index % 4 === 0);
}

// Shows a status; the server's answer has its own.
function show(status, html = "", isWrong = false) {
  digits.innerHTML = html;
  reading.textContent = status ?? digits.firstElementChild.dataset.status;
  reading.classList.toggle("notice", isWrong);
}

function showEnd() {
  show("No answer: draw.py has ended. Start it again, then open the page that it names.", "", true);
}

// Reads what is drawn, again until nothing has changed meanwhile: one request at a time.
async function read() {
  if (!isReady || isReading) return;
  isReading = true;
  while (isChanged) {
    isChanged = false;
    if (!strokes.length) {
      show("Draw with a mouse, a finger or a pen.");
      continue;
    }
    try {
      const headers = { "Content-Type": "application/octet-stream" };
      const response = await fetch("/", { method: "POST", headers, body: pixels() });
      const text = await response.text();
      if (!strokes.length) continue; // cleared meanwhile
      if (response.ok) show(null, text);
      else show(text, "", true);
    } catch {
      showEnd();
    }
  }
  isReading = false;
}

function draw(event) {
  if (event.pointerId !== pointer) return;
  const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
  const moves = event.getCoalescedEvents?.() ?? [];
  for (const move of moves.length ? moves : [event]) {
    strokes.at(-1).push([(move.clientX - box.left) * scale, (move.clientY - box.top) * scale]);
  }
  change();
}

canvas.addEventListener("pointerdown", (event) => {
  if (pointer !== null || event.button !== 0) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  pointer = event.pointerId;
  strokes.push([]);
  draw(event);
});
canvas.addEventListener("pointermove", draw);
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => { if (event.pointerId === pointer) pointer = null; });
}

function takeBack(number) {
  if (pointer !== null) return;
  strokes.splice(Math.max(0, strokes.length - number));
  change();
}
document.getElementById("undo").addEventListener("click", () => takeBack(1));
document.getElementById("clear").addEventListener("click", () => takeBack(strokes.length));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") takeBack(strokes.length);
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || event.shiftKey) return;
  event.preventDefault();
  takeBack(1);
});

paint();
fetch("/ready").then(() => { isReady = true; }).then(change, showEnd);

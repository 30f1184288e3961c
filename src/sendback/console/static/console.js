// The keys, copying, local times and live lists of the console. Everything else works without it.
"use strict";

// --- times in the reader's zone ---
const pad = (number) => String(number).padStart(2, "0");
const day = (date) => `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
const clock = (date) => `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;

function showTimes(root) {
  const today = day(new Date());
  for (const element of root.querySelectorAll("time[datetime]")) {
    const date = new Date(element.dateTime);
    if (Number.isNaN(date.getTime())) continue;
    const form = element.dataset.form;
    const is_today = day(date) === today;
    element.textContent =
      form === "full" ? `${day(date)} ${clock(date)}`
      : form === "date" ? day(date)
      : is_today ? clock(date) : `${day(date).slice(5)} ${clock(date).slice(0, 5)}`;
    element.title = `${day(date)} ${clock(date)} (${element.dateTime})`;
  }
}

// --- copying ---
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText(source.value ?? source.textContent);
  const before = button.textContent;
  button.textContent = "Copied";
  announce("Copied");
  setTimeout(() => { button.textContent = before; }, 1500);
});

function announce(text) {
  const place = document.getElementById("announcements");
  if (place) place.textContent = text;
}

// --- forms: one press is one change; what cannot be undone is asked about ---
document.addEventListener("submit", (event) => {
  const question = (event.submitter && event.submitter.dataset.confirm) || event.target.dataset.confirm;
  if (question && !window.confirm(question)) {
    event.preventDefault();
    event.stopImmediatePropagation();
  }
}, true);

document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-submits]");
  if (form) form.requestSubmit();
  const all = event.target.closest("[data-checks]");
  if (all) for (const box of document.querySelectorAll(`input[name="${all.dataset.checks}"]`)) box.checked = all.checked;
});

// --- keys ---
const isTyping = (element) => element.closest("input, textarea, select, [contenteditable]");

function moveRow(step) {
  const rows = [...document.querySelectorAll(".rows .row")];
  if (!rows.length) return;
  const now = rows.findIndex((row) => row === document.activeElement);
  const start = now >= 0 ? now : rows.findIndex((row) => row.getAttribute("aria-current"));
  const next = rows[Math.min(Math.max(start + step, 0), rows.length - 1)];
  next.focus();
  if (document.querySelector(".panes")) next.click();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && isTyping(event.target)) { event.target.blur(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const keys = {
    "/": () => document.getElementById("search")?.focus(),
    j: () => moveRow(1),
    k: () => moveRow(-1),
    b: () => document.querySelector("[data-key=b]")?.click(),
    "?": () => document.getElementById("keys")?.showModal(),
  };
  if (event.key in keys) { event.preventDefault(); keys[event.key](); }
});

// --- live lists: the server sends rows, each with its ID ---
let stream = null;

function follow() {
  const list = document.querySelector("[data-live]");
  const url = list?.dataset.live;
  if (stream && stream.url !== (url ? new URL(url, location.href).href : "")) { stream.close(); stream = null; }
  if (!url || stream) return;
  stream = new EventSource(url);
  const state = (word) => {
    for (const element of document.querySelectorAll(".live")) {
      element.dataset.state = word;
      element.textContent = word === "live" ? "live" : "not connected";
    }
  };
  stream.onopen = () => state("live");
  stream.onerror = () => state("lost");
  stream.addEventListener("rows", (event) => placeRows(event.data));
  stream.addEventListener("reload", () => location.reload());
}

function placeRows(html) {
  const list = document.querySelector("[data-live]");
  const made = document.createElement("template");
  made.innerHTML = html;
  document.querySelector(".rows-empty")?.remove();
  for (const item of [...made.content.children]) {
    const known = document.getElementById(item.id);
    if (known) {
      const row = known.querySelector("[aria-current]");
      if (row) item.querySelector(".row")?.setAttribute("aria-current", "true");
      known.replaceWith(item);
    } else if (item.dataset.kept !== "no") {
      item.classList.add("new");
      list.prepend(item);
      while (list.children.length > 500) list.lastElementChild.remove();
    }
    htmx.process(item);
    showTimes(item);
    const open = document.querySelector(`[data-shows="${CSS.escape(item.dataset.message ?? "")}"]`);
    if (open) htmx.trigger(open, "changed");
  }
}

// --- ordered lists: drag, or the buttons of each entry ---
let dragged = null;
document.addEventListener("dragstart", (event) => { dragged = event.target.closest("[data-order]"); });
document.addEventListener("dragover", (event) => {
  const over = event.target.closest("[data-order]");
  if (!dragged || !over || over === dragged || over.parentNode !== dragged.parentNode) return;
  event.preventDefault();
  const after = event.clientY > over.getBoundingClientRect().top + over.offsetHeight / 2;
  over.parentNode.insertBefore(dragged, after ? over.nextSibling : over);
});
document.addEventListener("drop", (event) => { if (dragged) event.preventDefault(); });
document.addEventListener("dragend", () => {
  const list = dragged?.parentNode;
  dragged = null;
  const form = list && document.getElementById(list.dataset.orderForm);
  if (!form) return;
  form.elements.order.value = [...list.querySelectorAll("[data-order]")].map((item) => item.dataset.order).join("\n");
  form.requestSubmit();
});

// --- start, and after each part that htmx has placed ---
function ready(root) { showTimes(root); follow(); }
document.addEventListener("DOMContentLoaded", () => ready(document));
document.addEventListener("htmx:afterSettle", (event) => ready(event.target));
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.target.id === "detail") event.target.dataset.open = "";
});
document.addEventListener("htmx:beforeSwap", (event) => {
  // Errors are pages too: show them.
  if (event.detail.xhr.status >= 400) { event.detail.shouldSwap = true; event.detail.isError = false; }
});
document.addEventListener("htmx:beforeRequest", (event) => {
  // Nobody reads a page that is hidden, and a table that is open stays open.
  const part = event.target.closest("[data-refreshes]");
  if (part && (document.hidden || part.querySelector("details[open]"))) event.preventDefault();
});
document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRF-Token"] = document.querySelector("meta[name=csrf]")?.content ?? "";
});
document.addEventListener("click", (event) => {
  const row = event.target.closest(".panes .row");
  if (!row) return;
  for (const other of document.querySelectorAll(".panes .row[aria-current]")) other.removeAttribute("aria-current");
  row.setAttribute("aria-current", "true");
});

// Keeps a page as the server has it, while it is looked at: one stream of events says what has changed, and the parts
// of the page that are made of it are fetched anew. A page in the background has no stream.

const body = document.body;
const topics = (body.dataset.topics || "").split("\n").filter(Boolean);
const banner = document.getElementById("banner");
const engine = document.getElementById("engine");
const engineText = document.getElementById("engine-text");
const WORDS = { alive: "engine alive", slow: "engine slow", none: "no engine", database: "no database" };

let stream = null;
let fetching = false;
let again = false;
let known = engine.dataset.state;

function say(state, sentence) {
  if (engine.dataset.state !== state) engine.dataset.state = state;
  const text = WORDS[state] || "no answer";
  if (engineText.textContent !== text) engineText.textContent = text;
  banner.dataset.state = state;
  if (banner.textContent !== sentence) banner.textContent = sentence;
  banner.hidden = !sentence;
}

function open() {
  if (stream || document.hidden || "silent" in body.dataset) return;
  const query = topics.map((topic) => "topic=" + encodeURIComponent(topic)).join("&");
  // what has changed since the page was made is told at once
  stream = new EventSource(`${body.dataset.base}events?${query}&version=${body.dataset.version}`);
  let lost = false;
  stream.addEventListener("engine", (event) => {
    const news = JSON.parse(event.data);
    say(news.state, news.sentence);
    // what can be done depends on it
    if (lost || known !== news.state) refresh();
    lost = false;
    known = news.state;
  });
  stream.addEventListener("changed", refresh);
  stream.onerror = () => {
    lost = true;
    say("lost", "This page has lost its server, shows what was last known, and goes on by itself when it is back.");
    if (stream && stream.readyState === EventSource.CLOSED) {
      close();
      setTimeout(open, 2000);
    }
  };
}

function close() {
  if (stream) stream.close();
  stream = null;
}

async function refresh() {
  if (document.hidden) return;
  if (fetching) {
    again = true;
    return;
  }
  fetching = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.ok) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      body.dataset.version = fresh.body.dataset.version;
      replace(fresh);
    }
    document.dispatchEvent(new CustomEvent("refreshed"));
  } catch {
    // the stream says that the server is away
  } finally {
    fetching = false;
    if (again) {
      again = false;
      setTimeout(refresh, 200);
    }
  }
}

function replace(fresh) {
  for (const part of document.querySelectorAll("[data-part]")) {
    const other = fresh.querySelector(`[data-part="${CSS.escape(part.dataset.part)}"]`);
    if (!other || other.innerHTML === part.dataset.was) continue;
    if (part.dataset.was === undefined && other.innerHTML === part.innerHTML) continue;
    // what a person is typing into, or has opened, stays as it is; the next look replaces it
    const active = document.activeElement;
    if (part.contains(active) && active.matches("input, select, textarea")) continue;
    part.dataset.was = other.innerHTML;
    const opened = [...part.querySelectorAll("details")].map((each) => each.open);
    const place = part.contains(active) ? [...part.querySelectorAll("a, button, summary")].indexOf(active) : -1;
    part.replaceChildren(...other.childNodes);
    [...part.querySelectorAll("details")].forEach((each, number) => {
      if (opened[number] !== undefined) each.open = opened[number];
    });
    const found = place < 0 ? null : part.querySelectorAll("a, button, summary")[place];
    if (found) found.focus({ preventScroll: true });
    part.className = other.className;
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    close();
  } else {
    open();
    refresh();
  }
});
window.addEventListener("pagehide", close);
window.addEventListener("pageshow", open);

const theme = document.getElementById("theme");
function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
function show() {
  theme.textContent = isDark() ? "Light" : "Dark";
  theme.setAttribute("aria-label", isDark() ? "Use the light colours" : "Use the dark colours");
}
try {
  const kept = localStorage.getItem("trainflow-theme");
  if (kept) document.documentElement.dataset.theme = kept;
} catch {
  // a browser that keeps nothing
}
theme.addEventListener("click", () => {
  const next = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("trainflow-theme", next);
  } catch {
    // a browser that keeps nothing
  }
  show();
  document.dispatchEvent(new CustomEvent("themed"));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
theme.hidden = false;
show();
open();
